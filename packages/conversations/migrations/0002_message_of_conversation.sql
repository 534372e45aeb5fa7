-- A message of a conversation: queues have messages of their own, which may be in the same schema.
alter table message rename to conversation_message;
alter index message_pkey rename to conversation_message_pkey;
alter index message_sent rename to conversation_message_sent;
alter index message_period rename to conversation_message_period;
