-- Which keys have facts in a stream: asked when what the stream holds of a subject is erased.
create index projection_key_stream_of_stream on projection_key_stream (generation, tenant, stream);
