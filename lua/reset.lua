-- Purpose: forgets buckets: each is full from now on.
-- KEYS:    the buckets; their values are described in charge.lua.
-- ARGV:    none.
-- Returns: how many of them there were.
-- Clock:   none.

return redis.call('DEL', unpack(KEYS))
