-- In front of every script. Numbers stay below 2^53, so Lua's doubles carry them exactly.
local function now() -- server time in microseconds
    local t = redis.call('TIME')
    return t[1] * 1000000 + t[2]
end
local function begin(m, s) -- a new m: above every number that was ever given out, and all that is older counts as cleared
    local text = string.format('%.0f', s)
    redis.call('HSET', m, 's', text, 'f', text)
    return s
end
local function bump(m, time) -- the next write number
    local s = redis.call('HINCRBY', m, 's', 1)
    if s == 1 then return begin(m, time) end
    return s
end
local function counters(m) -- the number and the floor
    local found = redis.call('HMGET', m, 's', 'f')
    local s, f = tonumber(found[1]), tonumber(found[2])
    if s and f then return s, f end
    s = begin(m, now())
    return s, s
end
