-- Ask for the right to fill a value that is absent or was judged dead.
-- KEYS: m, channel, v, l, then tags.
-- ARGV: token, lease ms, how the dead record begins (empty: absent), tag life ms, deadline (server microseconds), seen.
-- Answers: V: a value is there | B ms left | D | L: too late | G number, floor, tag floors (8 bytes each).
if now() > tonumber(ARGV[5]) then return 'L' end -- its client waits no more: nobody would have the lease
if alive(record_at(KEYS[3]), ARGV[3]) then return 'V' end
local found = holder(KEYS[4])
local left = found and redis.call('PTTL', KEYS[4])
if found and left >= 0 then -- without an end it is none of ours
    local kind = string.sub(found, 1, 1)
    if kind == 'D' then return 'D' end
    if kind == 'L' then redis.call('SET', KEYS[4], 'W' .. string.sub(found, 2), 'KEEPTTL') end
    return 'B' .. left
end
local m = redis.call('HMGET', KEYS[1], 's', 'f')
local s, f = whole(m[1]), whole(m[2])
redis.call('SET', KEYS[4], 'L' .. ARGV[1], 'PX', ARGV[2])
if not (s and f) then -- created if absent or damaged, else a fresh namespace could never be filled
    s = begin(KEYS[1], tonumber(ARGV[6]))
    f = s
end
local answer = { 'G', struct.pack('>I8I8', s, f) }
for n = 5, #KEYS do
    local floor = floor_of(KEYS[n], s)
    if floor then
        redis.pcall('PEXPIRE', KEYS[n], ARGV[4], 'GT')
    else -- else a fresh tag could never be filled
        floor = s
        redis.call('SET', KEYS[n], string.format('%.0f', s), 'PX', ARGV[4])
    end
    answer[#answer + 1] = struct.pack('>I8', floor)
end
return table.concat(answer)
