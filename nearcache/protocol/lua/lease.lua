-- Ask for the right to fill a value that is absent or was judged dead.
-- KEYS: v, l, m, then tags.  ARGV: token, lease ms, how the dead record begins (empty: absent), tag life ms.
-- Answers: V: a value is there | B ms left | D | G number, floor, tag floors (8 bytes each).
local v = redis.pcall('GET', KEYS[1])
if type(v) == 'table' then -- a reply with an error: a value of another type is dead, anything else is no damage of ours
    if string.sub(v.err, 1, 9) ~= 'WRONGTYPE' then return v end
    v = false
end
if v and string.byte(v) == 0xC2 and (ARGV[3] == '' or string.sub(v, 1, #ARGV[3]) ~= ARGV[3]) then return 'V' end
local holder = redis.call('GET', KEYS[2])
local left = holder and redis.call('PTTL', KEYS[2])
if holder and left >= 0 then -- without an end it is none of ours
    local kind = string.sub(holder, 1, 1)
    if kind == 'D' then return 'D' end
    if kind == 'L' then redis.call('SET', KEYS[2], 'W' .. string.sub(holder, 2), 'KEEPTTL') end
    return 'B' .. left
end
redis.call('SET', KEYS[2], 'L' .. ARGV[1], 'PX', ARGV[2])
local s, f = counters(KEYS[3]) -- created if absent, else a fresh namespace could never be filled
local answer = { 'G', struct.pack('>I8I8', s, f) }
for i = 4, #KEYS do
    local floor = redis.call('GET', KEYS[i])
    if floor then
        redis.call('PEXPIRE', KEYS[i], ARGV[4], 'GT')
    else -- else a fresh tag could never be filled
        floor = string.format('%.0f', s)
        redis.call('SET', KEYS[i], floor, 'PX', ARGV[4])
    end
    answer[#answer + 1] = struct.pack('>I8', tonumber(floor))
end
return table.concat(answer)
