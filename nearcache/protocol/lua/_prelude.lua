-- In front of every script. Numbers stay below 2^53, so Lua's doubles carry them exactly.
-- What may be refused comes first and changes nothing. Once a script has written, Redis checks memory no more: a script that
-- stores takes its number before it writes anything else, and a full server refuses that; one that only removes begins with
-- DEL. A number without a message would make every other instance flush: they are next to each other.
local function now() -- server time in microseconds
    local t = redis.call('TIME')
    return t[1] * 1000000 + t[2]
end
local function whole(text) -- a counter or a floor; nil: absent or damaged
    local number = type(text) == 'string' and tonumber(text)
    return number and number > 0 and number < 2 ^ 53 and number % 1 == 0 and number or nil
end
local function begin(m, seen) -- a new m, above every number that was ever given out; all that is older is cleared
    local s = math.max(now(), seen + 1)
    local text = string.format('%.0f', s)
    redis.call('HSET', m, 's', text, 'f', text)
    return s
end
-- Take the next number and publish it; the number, or the refusal: then nothing was done. A new m if the counter is absent or
-- damaged, or if it was copied or set back, so that the number was given out before.
local function tell(m, channel, kind, names, seen)
    local s = redis.pcall('HINCRBY', m, 's', 1)
    if type(s) == 'table' then
        if not (string.find(s.err, 'not an integer', 1, true) or string.find(s.err, 'overflow', 1, true)) then
            return nil, s -- refused, or somebody else's
        end
        s = begin(m, seen)
    elseif s <= math.max(seen, 1) or s >= 2 ^ 53 then
        redis.call('HINCRBY', m, 's', -1) -- HSET may be refused
        s = begin(m, seen)
    end
    local told = redis.pcall('PUBLISH', channel, struct.pack('>BBI8', 1, kind, s) .. names)
    if type(told) ~= 'table' then return s end
    redis.call('HINCRBY', m, 's', -1)
    return nil, told
end
local function holder(l) -- what a lease's name has; a foreign type is deleted
    local found = redis.pcall('GET', l)
    if type(found) ~= 'table' then return found end
    if string.sub(found.err, 1, 9) ~= 'WRONGTYPE' then return redis.call('GET', l) end
    redis.call('DEL', l)
    return false
end
local function held(l) -- whether a hold stands there: D
    local found = holder(l)
    return found and string.byte(found) == 68, found
end
-- The floor of a tag, and the lower one below which its values are dead: between the two they are stale. nil: absent,
-- damaged, or above the counter, as of another history.
local function floor_of(t, s)
    local text = redis.pcall('GET', t)
    local floor, dead = string.match(type(text) == 'string' and text or '', '^(%d+) ?(%d*)$')
    floor = whole(floor)
    if floor and floor <= s then return floor, whole(dead) or floor end
end
local function ours(record) -- whether it is a value (0xC2) or a counter (0xC3) of this library
    local magic = string.byte(record)
    return magic == 0xC2 or magic == 0xC3
end
local function record_at(v) -- the record of a key; false: absent, or of a foreign type, which is a dead value
    local found = redis.pcall('GET', v)
    if type(found) ~= 'table' then return found end
    if string.sub(found.err, 1, 9) ~= 'WRONGTYPE' then return redis.call('GET', v) end -- no damage of ours
    return false
end
local function alive(v, dead) -- whether it is another record than the one that begins as its caller judged dead
    return v and ours(v) and (dead == '' or string.sub(v, 1, #dead) ~= dead)
end
