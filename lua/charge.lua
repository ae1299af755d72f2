-- Purpose: decides and refunds, for any number of requests, one after the other: each takes from all its limits, buckets and
--          windows, or from none if one of them lacks tokens or room, and sees what those before it took. A cost below zero
--          gives back; no bucket gets above its capacity, and no window gets room that it would not have had without the
--          charge. A refusal writes nothing. With a time to look ahead, what is not there yet is reserved: a bucket may owe
--          what it will gain in that time, and a window takes it for the moment at which it will have room; and a place may
--          be given back whose time is so far ahead, unless a bucket owes for longer.
-- KEYS:    one a charge, then one for each scale that they follow, the last first. A bucket's value is 12 bytes,
--          little-endian: its time in µs (7 bytes) and its micro-tokens (5), and one byte more where it owes them. A window's
--          is 7 bytes, its micro-tokens taken, then 13 for each mark in rising order of time: its time in µs (7) and its
--          micro-tokens (6). A scale's record is described in publish.lua. A key that is absent, or holds anything else, is a
--          full bucket, a window of which nothing is taken, or a scale at factor 1.
-- ARGV:    one for as many decisions in a row as ask the same: how many (1 byte), then 32 bytes for each charge of one, whose
--          keys must differ, little-endian: 0 for a bucket or 1 for a window (1), cost (6, signed), capacity or quota (5). Then, of a bucket, refill a second in whole tokens (7) and the
--          micro-tokens beyond (7); of a window, its length in µs (7), when that was charged which is given back (7). Then
--          the lowest factor of its scale in millionths (4), which of the scales it follows (1; 0 for none; 128 more for a
--          debt, which is never refused: of a bucket no more is taken than there is), on what terms (1): 0 takes the
--          cost, 255 only needs it to be there, any other number takes it where the limit of that number has no value, and
--          asks for nothing where it has. Then, where there is one, the time to look ahead, in µs (7).
-- Returns: a string, for each decision: when it was charged in µs, or 0 where refused (7 bytes, little-endian as all of it); then
--          for each charge its micro-tokens before (6, signed: all there can be where nothing is asked for; of a bucket, below
--          zero what it owes), its factor in millionths (4), and of a window, how many µs until the cost has room, or where it
--          has, until something comes back, or 0 (7).
-- Clock:   Redis' own, read once.
-- Cost:    a call of a function costs as much as some twenty operators. So what every decision comes by is written without
--          math.floor, math.min and math.max, nor calls functions of its own; decisions that ask the same are told once and
--          unpacked once; keys live for whole seconds,
--          because numbers are costly to turn into text, and few of those differ; and the answer is one string, because each
--          integer of an answer costs whoever reads it some thousand instructions.
-- Exact:   each product and quotient is an integer below 2^53, or so far above the capacity that it is cut to it.

local call, keys, runs = redis.call, KEYS, ARGV
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local values = call('MGET', unpack(keys))
local floor, max, min, read, write = math.floor, math.max, math.min, struct.unpack, struct.pack
local reply, replied, states, unpacked, texts = {}, 0, {}, {}, {}

-- The charges of the decision in hand, how many keys there are before its own, how far it looks ahead, and whether it is refused.
local charges, before, ahead, refused = {}, 0, nil, false

-- What a limit of the decision holds by now, where it holds anything.
local function value_of(i)
  local place = before + i
  return states[keys[place]] or values[place]
end

-- Whether a limit of the decision has a value of its kind.
local function is_known(i)
  local value = charges[i] and value_of(i)
  if not value then return false end
  if charges[i][1] == 0 then return #value == 12 or #value == 13 end
  return #value % 13 == 7
end

-- A scale's record: its factor, and the time on its clock. Each is read once.
local factors, clocks = {}, {}
local function scaled(scale)
  if scale == 0 then return 1000000, now end
  if not factors[scale] then
    local record = values[#keys + 1 - scale]
    local factor, clock = 1000000, now
    if record and #record == 18 then
      local anchor_scaled, anchor_real
      factor, anchor_scaled, anchor_real = read('<I4I7I7', record)
      local elapsed = max(0, now - anchor_real)
      local seconds = floor(elapsed / 1000000)
      clock = anchor_scaled + seconds * factor + floor((elapsed - seconds * 1000000) * factor / 1000000)
    end
    factors[scale], clocks[scale] = factor, clock
  end
  return factors[scale], clocks[scale]
end

-- Answers for a bucket; what it is to hold if the decision is to admit, and for how many seconds, where that is to be written.
local function bucket(i, charge, asked, takes)
  local cost, capacity, rate_whole, rate_rest = charge[2], charge[3], charge[4], charge[5]
  local slowest, scale = charge[6], charge[7]
  local rate = rate_whole * 1000000 + rate_rest
  local factor, clock = 1000000, now
  if scale % 128 > 0 then factor, clock = scaled(scale % 128) end
  local place = before + i
  local value, tokens = states[keys[place]] or values[place], capacity
  local length = value and #value
  local known = length == 12 or length == 13
  if known then
    local at
    at, tokens = read('<I7I5', value)
    if length == 13 then tokens = -tokens end
    if clock > at then
      local rest = (clock - at) % 1000000
      local part = rest * rate_rest / 1000000
      tokens = tokens + (clock - at - rest) / 1000000 * rate + rest * rate_whole + (part - part % 1)
    else
      clock = at
    end
    if tokens > capacity then tokens = capacity end
  end
  local debt = scale >= 128
  if debt then cost = max(0, min(cost, tokens)) end
  if not asked then cost, tokens = 0, capacity end
  replied = replied + 1
  reply[replied] = write('<i6I4', tokens, factor)

  -- What has to be gained in the time ahead: what the bucket is to owe, or owes already where a place is given back.
  local left = tokens - cost
  if left > capacity then left = capacity end
  local short = -left
  if debt or cost < 0 then short = ahead and -tokens or 0 end
  if short > 0 and ahead then
    local seconds = floor(ahead / 1000000)
    local span = seconds * factor + floor((ahead - seconds * 1000000) * factor / 1000000)
    seconds = floor(span / 1000000)
    local rest = span - seconds * 1000000
    short = short - min(seconds * rate + rest * rate_whole + floor(rest * rate_rest / 1000000), 1000000000000)
  end

  if short > 0 then
    refused = true
  elseif takes and (known or cost > 0) then
    -- For how long it differs from a full bucket at the slowest, with one second to spare, and never so long that Redis would
    -- refuse the number.
    if factor < slowest then slowest = factor end
    local seconds = (capacity - left) * 1000000 / (rate * slowest)
    local state = left < 0 and write('<I7I5B', clock, -left, 0) or write('<I7I5', clock, left)
    return state, seconds < 10000000000 and seconds - seconds % 1 + 2 or 10000000000
  end
end

-- Makes what answers for windows: only for calls that ask about some.
local function windows()
  -- Marks, each a time and an amount, with one more amount at a time: in the last, where that is no earlier.
  local function add(marks, at, amount)
    local last = marks[#marks]
    if last and last[1] >= at then last[2] = last[2] + amount else marks[#marks + 1] = {at, amount} end
  end

  -- A window's marks from a byte of its value on.
  local function read_marks(value, first)
    local marks = {}
    for position = first, #value, 13 do
      local at, amount = read('<I7I6', value, position)
      marks[#marks + 1] = {at, amount}
    end
    return marks
  end

  local function write_marks(marks)
    local bytes = {}
    for n, mark in ipairs(marks) do
      if mark[2] > 0 then bytes[#bytes + 1] = write('<I7I6', mark[1], mark[2]) end
    end
    return table.concat(bytes)
  end

  -- The marks in a value from a byte on, once the cost is taken at a time: no more than 128, or else on a grid.
  local function charged(value, first, due, cost, grid)
    local before, at, amount = '', due, cost
    if first < #value then
      local last_at, last_amount = read('<I7I6', value, #value - 12)
      if last_at >= due then
        before, at, amount = string.sub(value, first, -14), last_at, last_amount + cost
      else
        before = string.sub(value, first)
      end
    end
    local marks = before .. write('<I7I6', at, amount)
    if #marks <= 128 * 13 then return marks end
    local rounded = {}
    for _, mark in ipairs(read_marks(marks, 1)) do
      add(rounded, mark[1] + (-mark[1]) % grid, mark[2])
    end
    return write_marks(rounded)
  end

  -- The marks in a value from a byte on, and how much was given back: out of the youngest that are not younger than the charge.
  local function refunded(value, first, cost, at)
    local marks, left = read_marks(value, first), cost
    for n = #marks, 1, -1 do
      local mark = marks[n]
      if mark[1] <= at then
        local given = min(left, mark[2])
        mark[2], left = mark[2] - given, left - given
      end
    end
    return write_marks(marks), cost - left
  end

  -- As for a bucket.
  return function(i, charge, asked, takes)
    local _, cost, quota, length, charged_at, slowest, scale = unpack(charge)
    local factor = scaled(scale % 128)
    local scaled_quota = max(1, floor(floor(quota / 1000000) * max(factor, slowest) / 1000000)) * 1000000
    local in_force = cost <= quota and max(scaled_quota, cost) or scaled_quota
    local grid = math.ceil(length / 64)

    -- What counts still: all marks from this byte on. A debt is taken whole, because it counts longer than what is there; of that
    -- goes then, oldest first, what would be too much beside it.
    local debt, full = scale >= 128, max(quota, in_force)
    local known = is_known(i)
    local value, taken, first = known and value_of(i) or '', 0, 8
    if known then taken = read('<I7', value) end
    while first < #value do
      local at, amount = read('<I7I6', value, first)
      if at + length > now and not (debt and taken + cost - amount >= full) then break end
      taken, first = taken - amount, first + 13
    end

    local tokens = max(0, in_force - taken)
    if not asked then cost, tokens = 0, scaled_quota end

    local missing, regained, wait = max(1, taken + cost - in_force), 0, 0
    for position = first, asked and #value or 0, 13 do
      local at, amount = read('<I7I6', value, position)
      wait, regained = at + length - now, regained + amount
      if regained >= missing then break end
    end
    replied = replied + 1
    reply[replied] = write('<i6I4I7', tokens, factor, min(wait, length + grid + 3600000000))

    -- When it is taken: now, or where it has to be reserved, once there is room.
    local due, marks = now, nil
    local reserved = cost > tokens and not debt
    if reserved then due = now + wait end
    if reserved and not (ahead and cost <= in_force and wait <= ahead and #value - first + 1 < 1024 * 13) then
      refused = true
    elseif takes and cost > 0 then
      marks, taken = charged(value, first, due, cost, grid), taken + cost
    elseif takes and cost < 0 and known then
      local given
      marks, given = refunded(value, first, -cost, charged_at)
      taken = taken - given
    end
    if marks then
      -- A key lives until its last mark counts no more. A clock that stepped back makes that no longer than a place ahead does.
      local last = #marks > 0 and read('<I7', marks, #marks - 12) or now
      return write('<I7', taken) .. marks, math.ceil((length + min(max(last - now, 0), 3600000000)) / 1000000) + 1
    end
  end
end

-- The charges of each decision of a run, how far it looks ahead, and how many there are.
local function unpack_run(run)
  local beyond = (#run - 1) % 32
  local list = {times = read('<B', run), ahead = beyond > 0 and read('<I7', run, #run - beyond + 1) or nil}
  for first = 2, #run - beyond, 32 do
    list[#list + 1] = {read('<Bi6I5I7I7I4BB', run, first)}
  end
  unpacked[run] = list
  return list
end

-- A lifetime in milliseconds.
local function write_lifetime(seconds)
  texts[seconds] = string.format('%d000', seconds)
  return texts[seconds]
end

local changed, kept, window = {}, {}, nil
local done, undone = write('<I7', now), write('<I7', 0)
for r = 1, #runs do
  charges = unpacked[runs[r]] or unpack_run(runs[r])
  ahead = charges.ahead
  for _ = 1, charges.times do
    refused = false
    replied = replied + 1
    local verdict = replied
    for i = 1, #charges do
      local charge = charges[i]
      local terms = charge[8]
      -- Whether the terms ask for the cost, and whether an admission takes it.
      local asked, takes = true, terms == 0
      if terms > 0 and terms < 255 then
        takes = not is_known(terms)
        asked = takes
      end
      if charge[1] == 0 then
        changed[i], kept[i] = bucket(i, charge, asked, takes)
      else
        window = window or windows()
        changed[i], kept[i] = window(i, charge, asked, takes)
      end
    end
    reply[verdict] = refused and undone or done
    for i = 1, refused and 0 or #charges do
      local state = changed[i]
      if state then
        local key = keys[before + i]
        states[key] = state
        call('PSETEX', key, texts[kept[i]] or write_lifetime(kept[i]), state)
      end
    end
    before = before + #charges
  end
end
return table.concat(reply)
