-- Introduce a client, before it does anything else: where the counter stands, and whose numbers it counts.
-- KEYS: m, scratch.  ARGV: this protocol, database, the highest number that the client has seen, 1 if it may take an m
-- that no protocol keeps: else nothing is done there, and the protocol that is told is empty.
-- Answers: number, floor, server time in microseconds (8 bytes each), 1 if the client may rely on them (0: a write was
-- refused; 2: two servers answer by turns), then i, a space, and the namespace's protocol.
local found = redis.pcall('HMGET', KEYS[1], 's', 'f', 'i', 'p', 'o', 't')
if found.err then return found end
local s, f, i, protocol = whole(found[1]), whole(found[2]), found[3] or nil, found[4] or nil
local time, seen = now(), tonumber(ARGV[3])
if not protocol and ARGV[4] ~= '1' then protocol = '' end
if protocol and protocol ~= ARGV[1] then return struct.pack('>I8I8I8B', 0, 0, time, 1) .. ' ' .. protocol end
local info = redis.pcall('INFO', 'replication')
local id = type(info) == 'string' and string.match(info, 'master_replid:(%w+)')
id = id and id .. '/' .. ARGV[2]
local good, writes = 1, {}
if id and id == found[5] and time - (tonumber(found[6] or nil) or 0) < 60000000 then -- one minute
    id, good = nil, 2
end
local number, floor = s, f
if not (s and f) then
    number = math.max(time, seen + 1)
    floor = number
elseif id and id ~= i then -- restarted, copied or failed over: numbers that were given out elsewhere are passed over
    number = math.max(s + 1, time)
end
if number < seen then -- it was copied before it gave those numbers out, or set back
    number = math.max(time, seen + 1)
    floor = number
end
local function text(value) return string.format('%.0f', value) end
if number ~= s or floor ~= f then writes = { 's', text(number), 'f', text(floor) } end
if id and id ~= i then
    for _, field in ipairs({ 'i', id, 'o', i or '', 't', text(time) }) do writes[#writes + 1] = field end
    i = id
end
if not protocol then
    writes[#writes + 1], writes[#writes + 2] = 'p', ARGV[1]
end
if #writes > 0 then
    local refused = redis.pcall('DEL', KEYS[2]) -- first, so that a full memory lets HSET pass
    if type(refused) ~= 'table' then refused = redis.pcall('HSET', KEYS[1], unpack(writes)) end
    if type(refused) == 'table' then number, floor, i, good = s or 0, f or 0, found[3] or nil, 0 end
end
return struct.pack('>I8I8I8B', number, floor, time, good) .. (i or '') .. ' ' .. ARGV[1]
