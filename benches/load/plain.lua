-- Purpose: the plainest of buckets, to compare with: one limit, one decision a call, in floats.
-- KEYS:    a hash: its tokens, and when they were counted.
-- ARGV:    capacity, refill a second, the time in seconds.
-- Returns: 1 or 0 where refused, and in how many seconds there will be a token.
-- Clock:   the caller's.

local capacity, rate, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(bucket[1]) or capacity, tonumber(bucket[2]) or now
tokens = math.min(capacity, tokens + (now - at) * rate)
if tokens < 1 then
  redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
  return {0, math.ceil((1 - tokens) / rate)}
end
redis.call('HSET', KEYS[1], 'tokens', tokens - 1, 'at', now)
redis.call('EXPIRE', KEYS[1], math.ceil(capacity / rate) + 1)
return {1, 0}
