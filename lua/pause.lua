-- Purpose: leaves a bucket no more than its capacity less a lack; one that lacks more already stays as it is.
-- KEYS:    the bucket; its value is described in charge.lua. Absent, it is full.
-- ARGV:    the lack and the capacity, in micro-tokens. The bucket gains a micro-token a microsecond and follows no scale.
-- Returns: nothing.
-- Clock:   Redis' own, read once.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local capacity = tonumber(ARGV[2])
local most = math.max(0, capacity - ARGV[1])

local at, tokens = now, capacity
-- MGET, because to it a value of another type is no value.
local value = redis.call('MGET', KEYS[1])[1]
local length = value and #value
if length == 12 or length == 13 then
  at, tokens = struct.unpack('<I7I5', value)
  if length == 13 then tokens = -tokens end
  tokens = math.min(capacity, tokens + math.max(0, now - at))
  at = math.max(at, now)
end

if tokens > most then
  redis.call('PSETEX', KEYS[1], math.ceil((capacity - most) / 1000) + 1000, struct.pack('<I7I5', at, most))
end
