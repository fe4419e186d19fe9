// Which view the address names: `#/service/api`, `#/intentions?destination=api`.

/** The name of the view, the segments after it, and the query. */
export function route(hash = location.hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name, ...rest] = path.split("/").map(decoded);
  return { name: name || "graph", rest, query: new URLSearchParams(query ?? "") };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a view, for a link. */
export function address(name, rest = [], query = {}) {
  const path = [name, ...rest].map(encodeURIComponent).join("/");
  const given = Object.entries(query).filter(([, value]) => value);
  return `/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export function go(to) {
  location.hash = `#${to}`;
}
