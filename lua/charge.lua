-- Purpose: decides and refunds: takes tokens from all buckets, or from none if one of them lacks tokens. A cost below zero
--          gives back; no bucket gets above its capacity. A refusal writes nothing.
-- KEYS:    one a bucket, then one for each scale they follow. A bucket's value is 12 bytes, little-endian: its time in µs
--          (7 bytes) and its micro-tokens (5); a scale's record is described in publish.lua. A key that is absent, or holds
--          anything else, is a full bucket, or a scale at factor 1.
-- ARGV:    one a bucket, 23 bytes, little-endian: cost (6, signed), capacity (5), refill a second in whole tokens (3) and
--          the micro-tokens beyond (3), lowest factor of its scale in millionths (4), which of the scales it follows
--          (1; 0 for none; 128 more for a debt, of which no more is taken than there is), on what terms (1): 0 takes the
--          cost, 255 only needs it to be there, any other number takes it where the bucket of that number is absent, and
--          asks for nothing where it is not.
-- Returns: integers: 1 admitted or 0 refused, then for each bucket its micro-tokens before the charge (its capacity where
--          nothing is asked for), and its factor in millionths.
-- Clock:   Redis' own, read once.
-- Exact:   each product and quotient is an integer below 2^53, or so far above the capacity that it is cut to it.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local values = redis.call('MGET', unpack(KEYS))
local floor, read = math.floor, struct.unpack
local reply, states, lifetimes = {1}, {}, {}

for i = 1, #ARGV do
  local cost, capacity, rate_whole, rate_rest, slowest, scale, terms = read('<i6I5I3I3I4BB', ARGV[i])
  local rate = rate_whole * 1000000 + rate_rest
  local debt = scale >= 128
  if debt then scale = scale - 128 end

  -- The time on the bucket's clock.
  local clock, factor = now, 1000000
  if scale > 0 then
    local record = values[#ARGV + scale]
    if record and #record == 18 then
      local anchor_scaled, anchor_real
      factor, anchor_scaled, anchor_real = read('<I4I7I7', record)
      local elapsed = math.max(0, now - anchor_real)
      local seconds = floor(elapsed / 1000000)
      clock = anchor_scaled + seconds * factor + floor((elapsed - seconds * 1000000) * factor / 1000000)
    end
  end

  -- What the bucket holds at that time.
  local tokens = capacity
  local value = values[i]
  if value and #value == 12 then
    local at
    at, tokens = read('<I7I5', value)
    if clock > at then
      local seconds = floor((clock - at) / 1000000)
      local rest = clock - at - seconds * 1000000
      tokens = tokens + seconds * rate + rest * rate_whole + floor(rest * rate_rest / 1000000)
    else
      clock = at
    end
    if tokens > capacity then tokens = capacity end
  end
  reply[2 * i], reply[2 * i + 1] = tokens, factor
  if debt then cost = math.min(cost, tokens) end

  local takes = terms == 0
  if terms > 0 and terms < 255 then
    local other = values[terms]
    takes = not (other and #other == 12)
    if not takes then cost, reply[2 * i] = 0, capacity end
  end

  -- What it is to hold, and for how long that differs from a full bucket at the slowest: in ms, with one second to spare,
  -- and never so long that Redis would refuse the number.
  local left = math.min(tokens - cost, capacity)
  if left < 0 then
    reply[1] = 0
  elseif takes and (value or cost > 0) then
    states[i] = struct.pack('<I7I5', clock, left)
    local fill = floor((capacity - left) * 1000000000 / (rate * math.min(slowest, factor)))
    lifetimes[i] = math.min(fill + 1001, 10000000000000)
  end
end

if reply[1] == 1 then
  for i, state in pairs(states) do
    redis.call('PSETEX', KEYS[i], lifetimes[i], state)
  end
end
return reply
