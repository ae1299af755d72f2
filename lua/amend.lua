-- Purpose: keeps what operators changed for a while, for all replicas: sets, removes or only reads. Only reading writes nothing.
-- KEYS:    a hash: by name, when the amendment ends in µs (7 bytes, little-endian), then its text.
-- ARGV:    none to only read; or name, text (empty removes it), its lifetime in ms, the most amendments there may be.
-- Returns: 1, or 0 where there was no room; then for each amendment that has not ended its name, its text, and for how many
--          more ms it holds.
-- Clock:   Redis' own, read once.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local held = redis.call('HGETALL', KEYS[1])
local name, text = ARGV[1], ARGV[2]

local reply, live, latest = {1}, 0, 0
local function tell(of, what, till)
  live, latest = live + 1, math.max(latest, till)
  table.insert(reply, of)
  table.insert(reply, what)
  table.insert(reply, math.ceil((till - now) / 1000))
end

for i = 1, #held, 2 do
  local till = #held[i + 1] > 7 and struct.unpack('<I7', held[i + 1]) or 0
  if till > now and held[i] ~= name then
    tell(held[i], string.sub(held[i + 1], 8), till)
  elseif name then
    redis.call('HDEL', KEYS[1], held[i])
  end
end

if name and text ~= '' then
  if live >= tonumber(ARGV[4]) then
    reply[1] = 0
  else
    local till = now + ARGV[3] * 1000
    redis.call('HSET', KEYS[1], name, struct.pack('<I7', till) .. text)
    tell(name, text, till)
  end
end
if name and live > 0 then
  redis.call('PEXPIRE', KEYS[1], math.ceil((latest - now) / 1000) + 1000)
end
return reply
