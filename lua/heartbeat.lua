-- Purpose: counts the replicas that share this store; each is counted for a while after its last heartbeat.
-- KEYS:    a sorted set: each replica's name by the time of its last heartbeat in ms.
-- ARGV:    the caller's name; for how many ms a heartbeat counts; 1 for a heartbeat, or 0 where the caller leaves.
-- Returns: how many replicas there are.
-- Clock:   Redis' own, read once. A heartbeat from the future, left by a clock that stepped back, does not count.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if ARGV[3] == '1' then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
