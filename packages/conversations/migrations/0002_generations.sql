-- The projections make these tables themselves now, each in a schema of its own, and fill them from the log when they
-- are started for the first time.
drop table conversation;
drop table conversation_participant;
drop table unread_source;
drop table message;
drop table response_time;
drop table response_source;
