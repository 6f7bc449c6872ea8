local store = "hythe.answers"

local function text(parts, known)
  local out = {}
  for i, part in ipairs(parts) do
    if part:sub(1, 1) == "=" then
      out[i] = part:sub(2)
    else
      out[i] = known and known[part:sub(2)] or ""
    end
  end
  return table.concat(out)
end

local function begins(value, start)
  return value:sub(1, #start) == start
end

local function cookie(value, domain, path)
  local out, first = {}, true
  for part in (value .. ";"):gmatch("([^;]*);") do
    local space, name, old = part:match("^(%s*)([^=%s]+)%s*=%s*(.-)%s*$")
    if not first and name then
      if domain and name:lower() == "domain" and old:gsub("^%.", ""):lower() == domain.from then
        part = space .. name .. "=" .. domain.to
      elseif path and name:lower() == "path" and begins(old, path.from) then
        part = space .. name .. "=" .. path.to .. old:sub(#path.from + 1)
      end
    end
    out[#out + 1], first = part, false
  end
  return table.concat(out, ";")
end

function envoy_on_request(handle)
  local location = handle:filterContext():get("location")
  if not location then return end
  local headers, known = handle:headers(), handle:streamInfo():dynamicMetadata()
  known:set(store, "host", headers:get(":authority") or "")
  known:set(store, "scheme", headers:get("x-forwarded-proto") or "")
end

function envoy_on_response(handle)
  local context, headers = handle:filterContext(), handle:headers()
  if context:get("domain") or context:get("path") then
    local values = {}
    for i = 0, headers:getNumValues("set-cookie") - 1 do
      values[i + 1] = cookie(headers:getAtIndex("set-cookie", i), context:get("domain"), context:get("path"))
    end
    if #values > 0 then
      headers:remove("set-cookie")
      for _, value in ipairs(values) do headers:add("set-cookie", value) end
    end
  end
  local location = context:get("location")
  if not location then return end
  local known = handle:streamInfo():dynamicMetadata():get(store)
  local from, to = text(location.from, known), text(location.to, known)
  local old = headers:get("location")
  if old and begins(old, from) then
    headers:replace("location", to .. old:sub(#from + 1))
  end
  local refresh = headers:get("refresh")
  local before, url = (refresh or ""):match("^(.-[uU][rR][lL]%s*=%s*)(.*)$")
  if url and begins(url, from) then
    headers:replace("refresh", before .. to .. url:sub(#from + 1))
  end
end
