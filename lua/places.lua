-- Purpose: holds the places of clients, of each for a while after it was last spoken for. A place that is held is spoken for
--          anew; one that is not is granted where its client has room.
-- KEYS:    one a place: its client's, a sorted set of the places that are held, each by when its lease ends in ms. A client
--          may be named more than once.
-- ARGV:    a lease's lifetime in ms; how many places a client may hold, or 0 to give these up; then one a key: the place.
-- Returns: how many of them are held now.
-- Clock:   Redis' own, read once. A lease that ends later than any could, left by a clock that stepped back, has ended.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lifetime, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local held = 0

for i, client in ipairs(KEYS) do
  local place = ARGV[i + 2]
  if most == 0 then
    redis.call('ZREM', client, place)
  else
    redis.call('ZREMRANGEBYSCORE', client, '-inf', now)
    redis.call('ZREMRANGEBYSCORE', client, '(' .. now + lifetime, '+inf')
    if redis.call('ZSCORE', client, place) or redis.call('ZCARD', client) < most then
      redis.call('ZADD', client, now + lifetime, place)
      redis.call('PEXPIRE', client, lifetime)
      held = held + 1
    end
  end
end
return held
