// Services and the links between them, made of the edges that the sidecars saw.

/** Worst first: a link shows the worst verdict that it has now. */
export const VERDICTS = ["deny", "failed", "audit", "allow"];

/** In words. */
export const VERDICT_TEXT = { allow: "allowed", deny: "denied", audit: "would be denied", failed: "failed" };

// Sidecars tell every 5 s; what is this much older than the newest row of its pair is of before.
const ALIKE_MS = 15_000;

/** One link a pair of services, by source and destination. */
export function linksOf(edges) {
  const links = new Map();
  for (const edge of edges) {
    const key = keyOf(edge.source, edge.destination);
    let link = links.get(key);
    if (!link) {
      link = { key, source: edge.source, destination: edge.destination, rows: [] };
      links.set(key, link);
    }
    link.rows.push(edge);
  }
  for (const link of links.values()) summarise(link);
  return links;
}

/** Neither name has a space. */
export function keyOf(source, destination) {
  return `${source} ${destination}`;
}

function summarise(link) {
  const newest = Math.max(...link.rows.map((row) => Date.parse(row.last_seen) || 0));
  const isNow = (row) => (Date.parse(row.last_seen) || 0) >= newest - ALIKE_MS;
  link.now = link.rows.filter(isNow);
  link.before = link.rows.filter((row) => !isNow(row));
  link.verdict = VERDICTS.find((verdict) => link.now.some((row) => row.verdict === verdict)) ?? "allow";
  link.isMixed = new Set(link.now.map((row) => row.verdict)).size > 1;
  link.rate = sum(link.now, (row) => row.rate);
  link.refusedRate = sum(
    link.now.filter((row) => row.verdict === "deny"),
    (row) => row.rate,
  );
  link.count = sum(link.rows, (row) => row.count);
  link.errors = sum(link.rows, (row) => row.errors);
  link.open = sum(link.rows, (row) => row.open);
  link.lastSeen = new Date(newest).toISOString();
  link.p99 = slowest(link.now);
}

function sum(rows, of) {
  return rows.reduce((total, row) => total + (of(row) || 0), 0);
}

function slowest(rows) {
  const known = rows.map((row) => row.recent?.p99_ms ?? row.p99_ms).filter((ms) => ms !== undefined && ms !== null);
  return known.length ? Math.max(...known) : undefined;
}

/** The graph: every service that is registered or seen, and the links between them. */
export function graphOf(edges, services) {
  const links = linksOf(edges);
  const nodes = new Map(services.map((service) => [service.name, node(service.name, service)]));
  for (const link of links.values()) {
    for (const name of [link.source, link.destination]) {
      if (!nodes.has(name)) nodes.set(name, node(name));
    }
    nodes.get(link.source).calls.push(link);
    nodes.get(link.destination).callers.push(link);
  }
  return { nodes, links };
}

function node(name, service) {
  return { name, service, calls: [], callers: [] };
}

/** `healthy`, `partly`, `critical` or `unknown`. */
export function healthOf(service) {
  if (!service || service.instances === 0) return "unknown";
  if (service.healthy === service.instances) return "healthy";
  return service.healthy === 0 ? "critical" : "partly";
}

/** The names that a filter leaves: those that contain a word of it, and those that they call or are called by. */
export function around(graph, text, hops = 1) {
  const words = text
    .toLowerCase()
    .split(/[\s,]+/)
    .filter(Boolean);
  if (!words.length) return null;
  const named = [...graph.nodes.keys()].filter((name) => words.some((word) => name.includes(word)));
  return spread(graph, named, hops);
}

/** These names and their neighbours, so many steps far. */
export function spread(graph, names, hops) {
  const kept = new Set(names);
  let rim = [...kept];
  for (let hop = 0; hop < hops; hop += 1) {
    const next = [];
    for (const name of rim) {
      const { calls = [], callers = [] } = graph.nodes.get(name) ?? {};
      for (const other of [...calls.map((link) => link.destination), ...callers.map((link) => link.source)]) {
        if (!kept.has(other)) {
          kept.add(other);
          next.push(other);
        }
      }
    }
    rim = next;
  }
  return kept;
}

/** What is shown: the nodes of `kept` (null: all) and the links of these verdicts between them. Nodes without a link stay where
 * they were asked for by name. */
export function part(graph, kept, verdicts, named) {
  const isKept = (name) => kept === null || kept.has(name);
  const links = [...graph.links.values()].filter(
    (link) => isKept(link.source) && isKept(link.destination) && link.now.some((row) => verdicts.has(row.verdict)),
  );
  const linked = new Set(links.flatMap((link) => [link.source, link.destination]));
  const all = verdicts.size === VERDICTS.length;
  const names = [...graph.nodes.keys()].filter((name) => isKept(name) && (all || linked.has(name) || named === name));
  return { names, links };
}
