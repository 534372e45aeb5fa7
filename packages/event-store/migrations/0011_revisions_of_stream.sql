-- The revisions in a stream: what they take the place of is looked up at once for all of its facts. Revisions are few, and nothing else is in
-- this index.
create index fact_revisions on fact (stream) where revision > 0;
