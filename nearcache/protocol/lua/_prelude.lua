-- In front of every script. Numbers stay below 2^53, so Lua's doubles carry them exactly.
-- What may be refused comes first and changes nothing. A number is taken late, and its message follows at once: a number
-- without a message would make every other instance flush. Once a script has written, Redis checks memory no more; so a
-- script that stores begins with HINCRBY, which a full server refuses, and one that only removes begins with DEL.
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
local function standing(m, seen) -- the counter as it stands; a new m if it is absent or damaged
    local s = redis.pcall('HINCRBY', m, 's', 0)
    if type(s) == 'table' then
        if not string.find(s.err, 'not an integer', 1, true) then
            return redis.call('HINCRBY', m, 's', 0) -- refused, or somebody else's: the error is the answer
        end
        s = 0
    end
    if s > 0 and s < 2 ^ 53 then return s end
    return begin(m, seen)
end
local function tell(m, channel, kind, names, seen) -- take the next number and publish it; the number, or the refusal
    local s = redis.call('HINCRBY', m, 's', 1)
    if s <= seen then s = begin(m, seen) end -- the counter was copied or set back: s was given out before
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
