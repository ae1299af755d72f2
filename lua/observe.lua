-- Purpose: adds what a replica has measured of a tenant to what others have, and lets the tenant's scale follow all of it.
-- KEYS:    the tenant's scale, whose record is described in publish.lua; its samples: 11 bytes for each class of times in each
--          slot, little-endian: number of the slot (5), class (2), how many (4).
-- ARGV:    what to add, 6 bytes a class: class (2), how many (4); length of a slot in µs; slots that count; threshold in µs;
--          slope and floor in millionths; the fewest samples that count; the lifetimes of samples and scale in ms.
-- Returns: the factor in millionths.
-- Clock:   Redis' own, read once.
-- Exact:   classes, percentile and factor are those of src/limiter/latency.rs, operation by operation.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local floor, read, write = math.floor, struct.unpack, struct.pack
local length, slots, threshold = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local current = floor(now / length)
-- MGET, because to it a value of another type is no value.
local values = redis.call('MGET', KEYS[1], KEYS[2])

-- All samples by class, those of the current slot, and those of the others that still count.
local counts, latest, kept, total = {}, {}, {}, 0
local changed = #ARGV[1] > 0
local function add(class, count)
  counts[class] = (counts[class] or 0) + count
  total = total + count
end
local known = values[2]
if known and #known % 11 == 0 then
  for i = 1, #known, 11 do
    local slot, class, count = read('<I5I2I4', known, i)
    if slot <= current and current - slot < slots then
      add(class, count)
      if slot == current then latest[class] = count else kept[#kept + 1] = known:sub(i, i + 10) end
    else
      changed = true
    end
  end
end
for i = 1, #ARGV[1], 6 do
  local class, count = read('<I2I4', ARGV[1], i)
  add(class, count)
  latest[class] = math.min((latest[class] or 0) + count, 4294967295)
end
if changed then
  for class, count in pairs(latest) do kept[#kept + 1] = write('<I5I2I4', current, class, count) end
  redis.call('PSETEX', KEYS[2], ARGV[8], table.concat(kept))
end

-- The factor of the 95th percentile.
local wanted = 1000000
if total > 0 and total >= tonumber(ARGV[7]) then
  local classes = {}
  for class in pairs(counts) do classes[#classes + 1] = class end
  table.sort(classes)
  local rank, passed, class = floor((total * 95 + 99) / 100), 0, 0
  for i = 1, #classes do
    class = classes[i]
    passed = passed + counts[class]
    if passed >= rank then break end
  end
  local doublings = math.max(floor(class / 16) - 1, 0)
  local width = 250 * 2 ^ doublings
  local p95 = (class - 16 * doublings) * width + floor(width / 2)
  local fall = ARGV[5] * math.max(p95 - threshold, 0) / threshold
  wanted = math.min(math.max(floor(1000000 - fall), tonumber(ARGV[6])), 1000000)
end

-- The scale, as in publish.lua; but one that is not there and has nothing to say is not written.
local factor, anchor_scaled, anchor_real = 1000000, 0, 0
local record = values[1]
if record and #record == 18 then
  factor, anchor_scaled, anchor_real = read('<I4I7I7', record)
end
if wanted == factor and now >= anchor_real then
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
else
  local elapsed = math.max(0, now - anchor_real)
  local seconds = floor(elapsed / 1000000)
  local advance = seconds * factor + floor((elapsed - seconds * 1000000) * factor / 1000000)
  redis.call('PSETEX', KEYS[1], ARGV[9], write('<I4I7I7', wanted, anchor_scaled + advance, now))
end
return wanted
