-- Purpose: from now on a scale's clock runs at another factor; what passed before is credited as before.
-- KEYS:    the scale's record. Its value is 18 bytes, little-endian: factor in millionths (4), what its clock showed at
--          its anchor in µs (7), what the real clock showed then (7). Absent, its clock is the real one.
-- ARGV:    the factor in millionths; the record's lifetime in ms, renewed with every publication; 1 to leave a record that
--          is there as it is, else 0.
-- Returns: nothing.
-- Clock:   Redis' own, read once.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wanted = tonumber(ARGV[1])

local factor, anchor_scaled, anchor_real = 1000000, 0, 0
-- MGET, because to it a value of another type is no value.
local record = redis.call('MGET', KEYS[1])[1]
if record and #record == 18 then
  factor, anchor_scaled, anchor_real = struct.unpack('<I4I7I7', record)
  if ARGV[3] == '1' then return end
end

if wanted == factor and now >= anchor_real then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  local elapsed = math.max(0, now - anchor_real)
  local seconds = math.floor(elapsed / 1000000)
  local advance = seconds * factor + math.floor((elapsed - seconds * 1000000) * factor / 1000000)
  redis.call('PSETEX', KEYS[1], ARGV[2], struct.pack('<I4I7I7', wanted, anchor_scaled + advance, now))
end
