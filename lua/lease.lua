-- Purpose: one replica holds a signal's lease and says what it found; all learn what was found last. A lease is taken where
--          it is free: nobody holds it, it has run out, or it ends later than any could (the clock has stepped back).
-- KEYS:    the signal's record. Its value is 26 bytes, little-endian: who holds the lease (8), until when in µs (7; 0 for
--          nobody), the factor found last in millionths (4; 0 for none yet), when its sample was taken in µs (7).
-- ARGV:    the caller (8 bytes); the lease's lifetime in ms (0 asks for none, and gives up one's own); what the caller found
--          (in millionths; 0 for nothing) and the age of its sample in ms; the record's lifetime in ms.
-- Returns: integers: 1 if the caller holds the lease now, else 0; the factor (0 for none); the age of its sample in ms.
-- Clock:   Redis' own, read once.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local caller, lifetime, found, age = ARGV[1], ARGV[2] * 1000, tonumber(ARGV[3]), ARGV[4] * 1000

local holder, till, factor, sampled = '', 0, 0, 0
-- MGET, because to it a value of another type is no value.
local record = redis.call('MGET', KEYS[1])[1]
if record and #record == 26 then
  holder, till, factor, sampled = struct.unpack('<c8I7I4I7', record)
end

local held_before = holder == caller and till > 0
local holds = lifetime > 0 and (held_before or till <= now or till > now + lifetime)
if holds or held_before then
  -- Whoever takes the lease anew may know less than the last holder did.
  if found > 0 and (held_before or now - age > sampled) then
    factor, sampled = found, math.max(0, now - age)
  end
  till = holds and now + lifetime or 0
  redis.call('PSETEX', KEYS[1], ARGV[5], struct.pack('<c8I7I4I7', caller, till, factor, sampled))
end
return {holds and 1 or 0, factor, math.floor(math.max(0, now - sampled) / 1000)}
