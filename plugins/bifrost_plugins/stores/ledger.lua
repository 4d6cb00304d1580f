-- The rules of the ledger (_ledger.py) as one script, so that each operation is one step of the server.
--
-- KEYS[1]: root of all keys, with a hash tag: every key is in one slot.
-- ARGV: operation, time (UTC seconds; '' for the server's own), arguments as JSON, a value (put, delete).
--
-- Numbers of Lua are doubles, exact up to 2^53 only, and 2^53 pico-USD are 9,007 USD. So amounts travel
-- and are kept as decimal strings, and are added and compared in two parts, high * 10^9 + low.

local root = KEYS[1]
local op = ARGV[1]
local args = cjson.decode(ARGV[3])

local RESULT_SECONDS = 86400
local MAX_RESULTS = 100000
local MAX_CORRECTIONS = 10000
local MAX_SERIES = 1000
local PAST_EPOCHS = 48
local USAGE_SECONDS = 400 * 86400
local TAKEN_BACK = 'taken back after a correction had lowered it already'

-- Whole numbers in two parts: { high, low } with 0 <= low < 10^9; a negative number has a negative high part.

local BASE = 1e9

local function normal(high, low)
    local carry = math.floor(low / BASE)
    return { high + carry, low - carry * BASE }
end

local function number(text)
    local negative = string.sub(text, 1, 1) == '-'
    local digits = negative and string.sub(text, 2) or text
    local high, low = 0, tonumber(string.sub(digits, -9))
    if #digits > 9 then high = tonumber(string.sub(digits, 1, -10)) end
    if negative then return normal(-high, -low) end
    return { high, low }
end

local function text_of(n)
    if n[1] < 0 then
        local m = normal(-n[1], -n[2])
        return '-' .. (m[1] == 0 and string.format('%.0f', m[2]) or string.format('%.0f%09.0f', m[1], m[2]))
    end
    if n[1] == 0 then return string.format('%.0f', n[2]) end
    return string.format('%.0f%09.0f', n[1], n[2])
end

local function plus(a, b) return normal(a[1] + b[1], a[2] + b[2]) end
local function minus(a, b) return normal(a[1] - b[1], a[2] - b[2]) end
local function exceeds(a, b) return a[1] > b[1] or (a[1] == b[1] and a[2] > b[2]) end
local function is_zero(a) return a[1] == 0 and a[2] == 0 end

local ZERO = { 0, 0 }
local MOST = number('9223372036854775807')

local function exact(seconds) return string.format('%.17g', seconds) end

-- Time never goes back.

local now
if ARGV[2] == '' then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1e6
else
    now = tonumber(ARGV[2])
end
local seen = tonumber(redis.call('GET', root .. ':seen') or '0')
if seen > now then now = seen end

local function remember_time()
    if now > seen then redis.call('SET', root .. ':seen', exact(now)) end
end

local function reply(fields) return cjson.encode(fields) end

-- Holds: a hash each; b the body as JSON, t reserved at, x expires at, d dispatched, and once it has
-- ended s state, a amounts, c crossings, e ended at; u usage, uh the hour in which it counts.

local function hold_key(id) return root .. ':h:' .. id end

local function load(id)
    local found = redis.call('HMGET', hold_key(id), 'b', 't', 'x', 'd', 's', 'a', 'c', 'u', 'uh')
    if not found[1] then return nil end
    local row = {
        id = id, body = cjson.decode(found[1]), at = tonumber(found[2]), expires = tonumber(found[3]),
        dispatched = found[4] == '1', state = found[5] or nil, usage_hour = found[9] or nil,
        crossings = found[7] or '[]', usage = found[8] or nil, amounts = nil,
    }
    if found[6] then row.amounts = cjson.decode(found[6]) end
    return row
end

local function ended(row, repeated)
    return {
        status = 'ended', id = row.id, state = row.state, amounts = row.amounts, dispatched = row.dispatched,
        crossings = row.crossings, repeated = repeated, call_id = row.body.call_id, labels = row.body.labels,
    }
end

local function forget_results()
    local done = root .. ':done'
    local old = redis.call('ZRANGEBYSCORE', done, '-inf', '(' .. exact(now - RESULT_SECONDS), 'LIMIT', 0, 5)
    if #old == 0 and redis.call('ZCARD', done) > MAX_RESULTS then
        old = redis.call('ZRANGE', done, 0, 4)
    end
    for _, id in ipairs(old) do
        redis.call('DEL', hold_key(id))
        redis.call('ZREM', done, id)
    end
end

local function save_end(row)
    redis.call('HSET', hold_key(row.id), 's', row.state, 'a', #row.amounts > 0 and cjson.encode(row.amounts) or '[]',
        'c', row.crossings, 'e', exact(now), 'd', row.dispatched and '1' or '0')
    if row.usage_hour then
        redis.call('HSET', hold_key(row.id), 'u', row.usage, 'uh', row.usage_hour)
    end
    redis.call('ZREM', root .. ':open', row.id)
    redis.call('ZADD', root .. ':done', exact(now), row.id)
    forget_results()
end

-- Counters: a hash each; epoch and ends of the latest epoch, per epoch s spent, h held and a what was announced.

local function counter_key(bucket) return root .. ':c:' .. bucket end

local function running(bucket)
    local found = redis.call('HMGET', counter_key(bucket), 'epoch', 'ends')
    if not found[1] then return nil end
    return { epoch = found[1], ends = found[2] ~= '' and tonumber(found[2]) or nil }
end

local function totals(bucket, epoch)
    local found = redis.call('HMGET', counter_key(bucket), 's' .. epoch, 'h' .. epoch)
    if not found[1] then return nil end
    return number(found[1]), number(found[2])
end

local function set_totals(bucket, epoch, spent, held)
    redis.call('HSET', counter_key(bucket), 's' .. epoch, text_of(spent), 'h' .. epoch, text_of(held))
end

local function period_of(before, claim)
    if claim.seconds then
        local start = math.floor(now)
        if not before or (before.ends and now >= before.ends) then
            return { epoch = string.format('%.0f', start), ends = start + claim.seconds }
        end
        if before.ends then return before end
        return { epoch = before.epoch, ends = start + claim.seconds }
    end
    local named = { epoch = claim.epoch, ends = claim.ends }
    if not before or before.epoch == claim.epoch then return named end
    if not claim.ends then return { epoch = before.epoch, ends = nil } end
    local epoch = tonumber(claim.epoch)
    if before.ends and now >= before.ends then
        return epoch > tonumber(before.epoch) and named or before
    end
    if epoch <= now and now < claim.ends then return { epoch = before.epoch, ends = claim.ends } end
    return before
end

local function forget_counters()
    local idle = root .. ':ci'
    for _, bucket in ipairs(redis.call('ZRANGEBYSCORE', idle, '-inf', exact(now), 'LIMIT', 0, 2)) do
        local held = false
        local fields = redis.call('HGETALL', counter_key(bucket))
        for i = 1, #fields, 2 do
            if string.sub(fields[i], 1, 1) == 'h' and fields[i + 1] ~= '0' then held = true end
        end
        if held then
            redis.call('ZADD', idle, exact(now + RESULT_SECONDS), bucket)
        else
            redis.call('DEL', counter_key(bucket))
            redis.call('ZREM', idle, bucket)
        end
    end
end

local function forget_epochs(bucket, current)
    local key = counter_key(bucket)
    local epochs = {}
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if string.sub(field, 1, 1) == 's' then epochs[#epochs + 1] = tonumber(string.sub(field, 2)) end
    end
    table.sort(epochs)
    for i = 1, #epochs - PAST_EPOCHS do
        local epoch = string.format('%.0f', epochs[i])
        if epoch ~= current and redis.call('HGET', key, 'h' .. epoch) == '0' then
            redis.call('HDEL', key, 's' .. epoch, 'h' .. epoch)
            for _, field in ipairs(redis.call('HKEYS', key)) do
                if string.find(field, 'a' .. epoch .. ':', 1, true) == 1 then redis.call('HDEL', key, field) end
            end
        end
    end
end

local function set_period(bucket, before, period)
    if before and before.epoch == period.epoch and before.ends == period.ends then return end
    redis.call('HSET', counter_key(bucket), 'epoch', period.epoch, 'ends', period.ends and exact(period.ends) or '')
    if before and before.epoch ~= period.epoch then forget_epochs(bucket, period.epoch) end
    if period.ends then
        redis.call('ZADD', root .. ':ci', exact(period.ends + RESULT_SECONDS), bucket)
    else
        redis.call('ZREM', root .. ':ci', bucket)
    end
    forget_counters()
end

-- Places: one hash of all buckets.

local function places(bucket) return number(redis.call('HGET', root .. ':places', bucket) or '0') end

local function set_places(bucket, held)
    if is_zero(held) then
        redis.call('HDEL', root .. ':places', bucket)
    else
        redis.call('HSET', root .. ':places', bucket, text_of(held))
    end
end

-- Windows: w when (sorted set of holds), wa amounts (hash), wt sums of all buckets (hash), wi when idle (sorted set).

local function forget_window(bucket)
    redis.call('DEL', root .. ':w:' .. bucket, root .. ':wa:' .. bucket)
    redis.call('HDEL', root .. ':wt', bucket)
    redis.call('ZREM', root .. ':wi', bucket)
end

local function window(bucket, seconds)
    local total = number(redis.call('HGET', root .. ':wt', bucket) or '0')
    local after = exact(now - seconds)
    local old = redis.call('ZRANGEBYSCORE', root .. ':w:' .. bucket, '-inf', after)
    if #old > 0 then
        for _, id in ipairs(old) do
            total = minus(total, number(redis.call('HGET', root .. ':wa:' .. bucket, id)))
            redis.call('HDEL', root .. ':wa:' .. bucket, id)
        end
        redis.call('ZREMRANGEBYSCORE', root .. ':w:' .. bucket, '-inf', after)
        redis.call('HSET', root .. ':wt', bucket, text_of(total))
    end
    return total
end

local function wait_of(claim, limit, amount, total)
    if exceeds(amount, limit) then return nil end
    local first = 0
    while true do
        local some = redis.call('ZRANGE', root .. ':w:' .. claim.bucket, first, first + 99, 'WITHSCORES')
        for i = 1, #some, 2 do
            total = minus(total, number(redis.call('HGET', root .. ':wa:' .. claim.bucket, some[i])))
            if not exceeds(plus(total, amount), limit) then
                return exact(tonumber(some[i + 1]) + claim.seconds - now)
            end
        end
        if #some == 0 then return nil end
        first = first + 100
    end
end

local function add_entry(bucket, id, seconds, amount)
    for _, idle in ipairs(redis.call('ZRANGEBYSCORE', root .. ':wi', '-inf', exact(now), 'LIMIT', 0, 2)) do
        if idle ~= bucket then forget_window(idle) end
    end
    redis.call('ZADD', root .. ':w:' .. bucket, exact(now), id)
    redis.call('HSET', root .. ':wa:' .. bucket, id, text_of(amount))
    redis.call('HSET', root .. ':wt', bucket, text_of(plus(number(redis.call('HGET', root .. ':wt', bucket) or '0'), amount)))
    redis.call('ZADD', root .. ':wi', exact(now + seconds), bucket)
end

local function set_entry(bucket, id, amount)
    local before = redis.call('HGET', root .. ':wa:' .. bucket, id)
    if before then
        redis.call('HSET', root .. ':wa:' .. bucket, id, text_of(amount))
        local total = plus(number(redis.call('HGET', root .. ':wt', bucket) or '0'), minus(amount, number(before)))
        redis.call('HSET', root .. ':wt', bucket, text_of(total))
    end
end

-- Usage: per hour a hash (labels, a line break, name of the sum) and the set of its labels.

local function add_usage(hour, row, values)
    local labels = row.body.labels
    local series = root .. ':ul:' .. hour
    if redis.call('SISMEMBER', series, labels) == 0 then
        if redis.call('SCARD', series) >= MAX_SERIES then
            labels = row.body.other
        end
        redis.call('SADD', series, labels)
        redis.call('ZADD', root .. ':uh', hour, hour)
    end
    for name, value in pairs(values) do
        -- A sum beyond 64 bits stays where it is: money has been booked, and a statistic stops nothing.
        if value ~= '0' then redis.pcall('HINCRBY', root .. ':u:' .. hour, labels .. '\n' .. name, value) end
    end
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', root .. ':uh', '-inf', exact(now - USAGE_SECONDS), 'LIMIT', 0, 2)) do
        redis.call('DEL', root .. ':u:' .. old, root .. ':ul:' .. old)
        redis.call('ZREM', root .. ':uh', old)
    end
end

local function count(row, usage, was_open)
    local values = {}
    for name, value in pairs(cjson.decode(usage)) do values[name] = value end
    if was_open or not row.usage_hour then
        row.usage_hour = string.format('%.0f', math.floor(now / 3600) * 3600)
    else
        for name, value in pairs(cjson.decode(row.usage)) do
            values[name] = text_of(minus(number(values[name] or '0'), number(value)))
        end
    end
    row.usage = usage
    add_usage(row.usage_hour, row, values)
end

-- The operations.

local function reserve()
    local row = load(args.id)
    if row then
        if row.state then return reply({ status = 'has_ended', state = row.state }) end
        local same = #row.body.takes == #args.claims
        for i, take in ipairs(row.body.takes) do
            local claim = args.claims[i]
            same = same and claim and take[1] == claim.kind and take[2] == claim.bucket and take[3] == claim.amount
        end
        if not same then return reply({ status = 'other_claims' }) end
        return reply({ status = 'granted', expires_at = exact(row.expires), repeated = true })
    end
    if redis.call('ZCARD', root .. ':open') >= args.max_holds then return reply({ status = 'full' }) end
    local changes = {}
    for i, claim in ipairs(args.claims) do
        local amount = number(claim.amount)
        local spent, held, before, period = ZERO, ZERO, nil, nil
        if claim.kind == 'counter' then
            before = running(claim.bucket)
            period = period_of(before, claim)
            local s, h = totals(claim.bucket, period.epoch)
            if s then spent, held = s, h end
        elseif claim.kind == 'places' then
            held = places(claim.bucket)
        else
            spent = window(claim.bucket, claim.seconds)
        end
        local after = plus(plus(spent, held), amount)
        if claim.limit then
            local limit = number(claim.limit)
            if exceeds(after, limit) then
                local denied = { status = 'denied', index = i - 1, spent = text_of(spent), held = text_of(held) }
                if period and period.ends then
                    denied.resets_at = exact(period.ends)
                    denied.retry_after = exact(math.max(0, period.ends - now))
                elseif claim.kind == 'window' then
                    denied.retry_after = wait_of(claim, limit, amount, spent)
                end
                return reply(denied)
            end
        end
        if exceeds(after, MOST) then return reply({ status = 'overflow', bucket = claim.bucket }) end
        changes[i] = { before, period, spent, plus(held, amount) }
    end
    local takes = {}
    for i, claim in ipairs(args.claims) do
        local before, period, spent, held = unpack(changes[i], 1, 4)
        takes[i] = { claim.kind, claim.bucket, claim.amount, period and period.epoch or '0', claim.thresholds }
        if period then
            set_period(claim.bucket, before, period)
            set_totals(claim.bucket, period.epoch, spent, held)
        elseif claim.kind == 'places' then
            set_places(claim.bucket, held)
        else
            add_entry(claim.bucket, args.id, claim.seconds, number(claim.amount))
        end
    end
    local body = {
        call_id = args.call_id, note = args.note, labels = args.labels, other = args.other,
        estimate = args.estimate, usage = args.usage, takes = takes,
    }
    local expires = now + args.expires_in
    redis.call('HSET', hold_key(args.id), 'b', cjson.encode(body), 't', exact(now), 'x', exact(expires),
        'd', args.dispatched and '1' or '0')
    redis.call('ZADD', root .. ':open', exact(expires), args.id)
    remember_time()
    return reply({ status = 'granted', expires_at = exact(expires), repeated = false })
end

local function add_correction(id, bucket, epoch, delta, reason)
    redis.call('LPUSH', root .. ':corrections', cjson.encode({ id, bucket, epoch, delta, reason, exact(now) }))
    redis.call('LTRIM', root .. ':corrections', 0, MAX_CORRECTIONS - 1)
end

local function finish(row, state, amounts, usage)
    local was_open = not row.state
    local crossings = {}
    for i, take in ipairs(row.body.takes) do
        if take[1] == 'counter' then
            local spent = totals(take[2], take[4])
            local old = was_open and ZERO or number(row.amounts[i])
            if spent and exceeds(minus(plus(spent, number(amounts[i])), old), MOST) then
                return { status = 'overflow', bucket = take[2] }
            end
        end
    end
    for i, take in ipairs(row.body.takes) do
        local kind, bucket, epoch = take[1], take[2], take[4]
        local amount, new = number(take[3]), number(amounts[i])
        if kind == 'places' then
            if was_open then set_places(bucket, minus(places(bucket), amount)) end
        elseif kind == 'window' then
            set_entry(bucket, row.id, new)
        else
            local spent, held = totals(bucket, epoch)
            if spent then
                spent = minus(plus(spent, new), was_open and ZERO or number(row.amounts[i]))
                if was_open then held = minus(held, amount) end
                if spent[1] < 0 then
                    add_correction(row.id, bucket, epoch, text_of(minus(ZERO, spent)), TAKEN_BACK)
                    spent = ZERO
                end
                set_totals(bucket, epoch, spent, held)
                for _, threshold in ipairs(take[5]) do
                    if not exceeds(number(threshold), spent) and
                        redis.call('HSETNX', counter_key(bucket), 'a' .. epoch .. ':' .. threshold, '1') == 1 then
                        crossings[#crossings + 1] = { bucket, epoch, threshold, text_of(spent) }
                    end
                end
            end
        end
    end
    if usage then count(row, usage, was_open) end
    row.state = state
    row.amounts = amounts
    row.crossings = #crossings > 0 and cjson.encode(crossings) or '[]'
    save_end(row)
    return ended(row, false)
end

local function booked(row, amounts)
    local result = {}
    for i, take in ipairs(row.body.takes) do result[i] = take[1] == 'places' and '0' or amounts[i] end
    return result
end

local function nothing(row)
    local result = {}
    for i in ipairs(row.body.takes) do result[i] = '0' end
    return result
end

local function equal(a, b)
    for i, value in ipairs(a) do
        if value ~= b[i] then return false end
    end
    return #a == #b
end

local function first_result(row, amounts)
    if not equal(amounts, row.amounts) then
        return { status = 'other_amounts', state = row.state, amounts = row.amounts }
    end
    return ended(row, true)
end

local function settle()
    local row = load(args.id)
    if not row then return reply({ status = 'unknown' }) end
    if #args.amounts ~= #row.body.takes then return reply({ status = 'claims', claims = #row.body.takes }) end
    local amounts = booked(row, args.amounts)
    remember_time()
    if not row.state then return reply(finish(row, 'settled', amounts, args.usage)) end
    if row.state == 'expired' then return reply(finish(row, 'adjusted', amounts, args.usage)) end
    return reply(first_result(row, amounts))
end

local function release()
    local row = load(args.id)
    remember_time()
    if not row then
        row = {
            id = args.id, state = 'released', amounts = {}, dispatched = false, crossings = '[]',
            body = { call_id = '', note = '', labels = '{}', other = '{}', estimate = {}, usage = '{}', takes = {} },
        }
        redis.call('HSET', hold_key(args.id), 'b', cjson.encode(row.body), 't', exact(now), 'x', exact(now))
        save_end(row)
        return reply(ended(row, false))
    end
    if not row.state then return reply(finish(row, 'released', nothing(row), nil)) end
    if row.state == 'expired' then return reply(finish(row, 'adjusted', nothing(row), '{}')) end
    return reply(first_result(row, nothing(row)))
end

local function adjust()
    local row = load(args.id)
    if not row then return reply({ status = 'unknown' }) end
    if not row.state then return reply({ status = 'is_open' }) end
    if #args.amounts ~= #row.body.takes then return reply({ status = 'claims', claims = #row.body.takes }) end
    local amounts = booked(row, args.amounts)
    local same = equal(amounts, row.amounts)
    if same and args.usage then
        local old, new = cjson.decode(row.usage_hour and row.usage or '{}'), cjson.decode(args.usage)
        for name, value in pairs(new) do same = same and old[name] == value end
        for name, value in pairs(old) do same = same and new[name] == value end
    end
    if same then return reply(ended(row, true)) end
    remember_time()
    local before = row.amounts
    local result = finish(row, 'adjusted', amounts, args.usage)
    if result.status == 'ended' then
        for i, take in ipairs(row.body.takes) do
            if take[1] == 'counter' and before[i] ~= amounts[i] then
                add_correction(row.id, take[2], take[4], text_of(minus(number(amounts[i]), number(before[i]))), args.reason)
            end
        end
    end
    return reply(result)
end

local function expire()
    local result = {}
    local due = redis.call('ZRANGEBYSCORE', root .. ':open', '-inf', exact(now), 'LIMIT', 0, args.limit)
    for _, id in ipairs(due) do
        local row = load(id)
        local usage = row.dispatched and row.body.usage ~= '{}' and row.body.usage or nil
        result[#result + 1] = finish(row, 'expired', row.dispatched and booked(row, row.body.estimate) or nothing(row), usage)
    end
    remember_time()
    return reply(result)
end

local function state_of(claim)
    if claim.kind == 'places' then
        return { claim.bucket, '0', text_of(places(claim.bucket)), '0' }
    elseif claim.kind == 'window' then
        return { claim.bucket, text_of(window(claim.bucket, claim.seconds)), '0', '0' }
    end
    local period = period_of(running(claim.bucket), claim)
    local spent, held = totals(claim.bucket, period.epoch)
    return { claim.bucket, text_of(spent or ZERO), text_of(held or ZERO), period.epoch, period.ends and exact(period.ends) or nil }
end

local function correct()
    local claim = args.claim
    if not redis.call('ZSCORE', root .. ':corrected', args.id) then
        local before = running(claim.bucket)
        local period = period_of(before, claim)
        local spent, held = totals(claim.bucket, period.epoch)
        spent, held = spent or ZERO, held or ZERO
        local after = args.to and number(args.to) or plus(spent, number(args.delta))
        if after[1] < 0 then return reply({ status = 'negative', spent = text_of(spent) }) end
        if exceeds(after, MOST) then return reply({ status = 'overflow', bucket = claim.bucket }) end
        set_period(claim.bucket, before, period)
        set_totals(claim.bucket, period.epoch, after, held)
        add_correction(args.id, claim.bucket, period.epoch, text_of(minus(after, spent)), args.reason)
        redis.call('ZADD', root .. ':corrected', exact(now), args.id)
        redis.call('ZREMRANGEBYRANK', root .. ':corrected', 0, -MAX_CORRECTIONS - 1)
        remember_time()
    end
    return reply({ status = 'state', state = state_of(claim) })
end

local function open_holds()
    local result = {}
    for _, id in ipairs(redis.call('ZRANGE', root .. ':open', 0, args.limit - 1)) do
        local row = load(id)
        local amounts, buckets = {}, {}
        for i, take in ipairs(row.body.takes) do
            amounts[i], buckets[i] = take[3], take[2]
        end
        result[#result + 1] = {
            id = id, call_id = row.body.call_id, amounts = amounts, buckets = buckets, dispatched = row.dispatched,
            expires_at = exact(row.expires), labels = row.body.labels, note = row.body.note,
        }
    end
    return reply(result)
end

-- Keys and values: kv values (hash), kx all keys (sorted by name), ke when they end (sorted set).

local function forget_value(key)
    redis.call('HDEL', root .. ':kv', key)
    redis.call('ZREM', root .. ':kx', key)
    redis.call('ZREM', root .. ':ke', key)
end

local function value(key)
    local found = redis.call('HGET', root .. ':kv', key)
    if not found then return nil end
    local ends = redis.call('ZSCORE', root .. ':ke', key)
    if ends and tonumber(ends) <= now then return nil end
    return found
end

local function put()
    for _, over in ipairs(redis.call('ZRANGEBYSCORE', root .. ':ke', '-inf', exact(now), 'LIMIT', 0, 10)) do
        forget_value(over)
    end
    if args.if_absent or args.expect then
        local current = value(args.key)
        if args.if_absent and current then return 0 end
        if args.expect and current ~= ARGV[5] then return 0 end
    end
    redis.call('HSET', root .. ':kv', args.key, ARGV[4])
    redis.call('ZADD', root .. ':kx', 0, args.key)
    if args.ttl then
        redis.call('ZADD', root .. ':ke', exact(now + args.ttl), args.key)
    else
        redis.call('ZREM', root .. ':ke', args.key)
    end
    return 1
end

local function delete()
    local current = value(args.key)
    if not current or (args.expect and current ~= ARGV[5]) then return 0 end
    forget_value(args.key)
    return 1
end

local function items()
    local result = {}
    local from = args.prefix == '' and '-' or '[' .. args.prefix
    local to = args.prefix == '' and '+' or '[' .. args.prefix .. '\255'
    for _, key in ipairs(redis.call('ZRANGEBYLEX', root .. ':kx', from, to)) do
        local current = value(key)
        if current then
            result[#result + 1] = key
            result[#result + 1] = current
        end
    end
    return result
end

if op == 'reserve' then return reserve() end
if op == 'settle' then return settle() end
if op == 'release' then return release() end
if op == 'adjust' then return adjust() end
if op == 'expire' then return expire() end
if op == 'correct' then return correct() end
if op == 'holds' then return open_holds() end
if op == 'put' then return put() end
if op == 'delete' then return delete() end
if op == 'items' then return items() end
if op == 'get' then return value(args.key) or false end
if op == 'dispatch' then
    local row = load(args.id)
    if not row then return reply({ status = 'unknown' }) end
    if row.state then return reply({ status = 'has_ended', state = row.state }) end
    redis.call('HSET', hold_key(args.id), 'd', '1')
    return reply({ status = 'done' })
end
if op == 'extend' then
    local row = load(args.id)
    if not row or row.state then return reply({ status = 'no' }) end
    if now + args.expires_in > row.expires then
        redis.call('HSET', hold_key(args.id), 'x', exact(now + args.expires_in))
        redis.call('ZADD', root .. ':open', exact(now + args.expires_in), args.id)
    end
    return reply({ status = 'yes' })
end
if op == 'read' then
    local states = {}
    for i, claim in ipairs(args.claims) do states[i] = state_of(claim) end
    return reply(states)
end
return redis.error_reply('unknown operation')
