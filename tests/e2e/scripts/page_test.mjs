// What of the page needs no browser: where nodes stand, what links say, how streams and numbers are read.
// `node page_test.mjs`, from anywhere.

import assert from "node:assert/strict";
import { test } from "node:test";

const page = new URL("../../../control/src/ui/page/", import.meta.url);
const { layout, NEAR, SIZES } = await import(new URL("graph/layout.js", page));
const { layersOf } = await import(new URL("graph/layers.js", page));
const { crossings, ordered } = await import(new URL("graph/order.js", page));
const model = await import(new URL("graph/model.js", page));
const { labelOf } = await import(new URL("graph/draw.js", page));
const { EventReader } = await import(new URL("live.js", page));
const format = await import(new URL("format.js", page));
const { route, address } = await import(new URL("router.js", page));

const link = (source, destination) => ({ source, destination });

/** The same numbers each time (Lehmer). */
function chance(seed) {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

function mesh(seed, services, links) {
  const next = chance(seed);
  const names = Array.from({ length: services }, (_, index) => `s${index}`);
  const made = Array.from({ length: links }, () =>
    link(names[Math.floor(next() * services)], names[Math.floor(next() * services)]),
  );
  return { names, links: made };
}

test("callers stand left of those that they call", () => {
  const links = [link("web", "api"), link("api", "db"), link("web", "db"), link("job", "db")];
  const { places } = layout(["web", "api", "db", "job"], links);
  for (const { source, destination } of links)
    assert.ok(places.get(source).x < places.get(destination).x, `${source} ${destination}`);
  assert.equal(places.get("job").layer, 1, "a caller stands beside what it calls");
});

test("a circle is cut at one link alone", () => {
  const links = [link("a", "b"), link("b", "c"), link("c", "d"), link("d", "a")];
  const layers = layersOf(["a", "b", "c", "d"], links);
  assert.equal(links.filter(({ source, destination }) => layers.get(source) >= layers.get(destination)).length, 1);
});

test("no two nodes cover each other, whatever the mesh", () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const { names, links } = mesh(seed, 2 + (seed % 30), seed * 2);
    const { places, width, height } = layout(names, links);
    assert.equal(places.size, names.length);
    const all = [...places.values()];
    for (const [index, one] of all.entries()) {
      assert.ok(one.x >= 0 && one.y >= 0 && one.x <= width && one.y <= height && Number.isFinite(one.x + one.y));
      for (const other of all.slice(index + 1)) {
        const isApart = Math.abs(one.x - other.x) >= SIZES.width || Math.abs(one.y - other.y) >= SIZES.height;
        assert.ok(isApart, `seed ${seed}: ${JSON.stringify([one, other])}`);
      }
    }
  }
});

test("the crossings that are counted are those that there are", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const next = chance(seed);
    const layers = [0, 1, 2].map((layer) => Array.from({ length: 6 }, (_, index) => `${layer}.${index}`));
    const neighbours = new Map(layers.flat().map((cell) => [cell, { left: [], right: [] }]));
    const pairs = [];
    for (const [index, layer] of layers.slice(0, -1).entries()) {
      for (const one of layer) {
        for (const other of layers[index + 1]) {
          if (next() > 0.4) continue;
          neighbours.get(one).right.push(other);
          neighbours.get(other).left.push(one);
          pairs.push([index, layer.indexOf(one), layers[index + 1].indexOf(other)]);
        }
      }
    }
    let naive = 0;
    for (const [index, [layer, from, to]] of pairs.entries()) {
      for (const [otherLayer, otherFrom, otherTo] of pairs.slice(index + 1)) {
        if (layer === otherLayer && (from - otherFrom) * (to - otherTo) < 0) naive += 1;
      }
    }
    assert.equal(crossings(layers, neighbours), naive, `seed ${seed}`);
    const cells = new Map(layers.flatMap((layer, index) => layer.map((cell) => [cell, index])));
    assert.ok(crossings(ordered(cells, neighbours), neighbours) <= naive);
  }
});

test("crossings that can be avoided are", () => {
  const links = [link("a", "y"), link("b", "x"), link("y", "q"), link("x", "p"), link("c", "z"), link("z", "r")];
  const { places } = layout(["a", "b", "c", "x", "y", "z", "p", "q", "r"], links);
  const above = (one, other) => Math.sign(places.get(one).y - places.get(other).y);
  assert.equal(above("a", "b"), above("y", "x"));
  assert.equal(above("y", "x"), above("q", "p"));
});

test("what calls nobody and is called by nobody stands below", () => {
  const { places } = layout(["a", "b", "alone"], [link("a", "b")]);
  assert.ok(places.get("alone").y > places.get("a").y);
  assert.equal(layout([], []).places.size, 0);
  assert.equal(layout(["one"], [link("one", "one")]).places.size, 1);
});

test("500 services and 3,000 links have no more columns than the eye can follow", () => {
  const { names, links } = mesh(7, 500, 3000);
  const { places, width, height } = layout(names, links);
  const columns = new Set([...places.values()].map((place) => place.x));
  assert.ok(columns.size >= 6 && columns.size <= 14, `${columns.size} columns`);
  assert.ok(width / height < 4 && height / width < 4, `${width} by ${height}`);
  assert.ok(NEAR.row < SIZES.row);
});

const seenAt = (seconds) => new Date(Date.UTC(2026, 0, 1) + seconds * 1000).toISOString();

function edge(source, destination, verdict, lastSeen, more = {}) {
  return {
    source,
    destination,
    verdict,
    port: "main",
    protocol: "http",
    because: "",
    count: 5,
    errors: 0,
    rate: 1,
    open: 0,
    recent: {},
    last_seen: seenAt(lastSeen),
    ...more,
  };
}

test("a link shows what becomes of calls now, not what became of them before", () => {
  const rows = [edge("web", "api", "deny", 0), edge("web", "api", "allow", 60, { p99_ms: 12 })];
  const now = model.linksOf(rows).get("web api");
  assert.deepEqual([now.verdict, now.isMixed, now.count, now.p99, now.before.length], ["allow", false, 10, 12, 1]);
  assert.equal(labelOf(now), "1/s · p99 12 ms");
});

test("a link of which some calls are denied shows the denials", () => {
  const rows = [
    edge("web", "api", "allow", 60, { rate: 9 }),
    edge("web", "api", "deny", 58, { rate: 3 }),
    edge("web", "api", "audit", 58, { rate: 0 }),
  ];
  const mixed = model.linksOf(rows).get("web api");
  assert.deepEqual([mixed.verdict, mixed.isMixed], ["deny", true]);
  assert.equal(labelOf(mixed), "denied 3/s of 12/s");
});

test("a filter leaves those that it names, and their neighbours", () => {
  const graph = model.graphOf(
    [edge("web", "api", "allow", 0), edge("api", "db", "deny", 0)],
    [{ name: "mail", instances: 1, healthy: 1 }],
  );
  assert.deepEqual([...graph.nodes.keys()].sort(), ["api", "db", "mail", "web"]);
  assert.deepEqual([...model.around(graph, "web")].sort(), ["api", "web"]);
  assert.deepEqual([...model.spread(graph, ["web"], 2)].sort(), ["api", "db", "web"]);
  assert.equal(model.around(graph, " "), null);
  const denied = model.part(graph, null, new Set(["deny"]));
  assert.deepEqual([denied.names.sort(), denied.links.map((one) => one.key)], [["api", "db"], ["api db"]]);
});

test("events are read whatever pieces they come in", () => {
  const text =
    ': \n\nevent: decision\ndata: {"a":1}\n\nevent: lagged\n\nevent: edges\r\ndata: {"b":\r\ndata: 2}\r\n\r\nevent: bad\ndata: {\n\n';
  for (const size of [1, 2, 3, 7, 1000]) {
    const got = [];
    const reader = new EventReader((name, data) => got.push([name, data]));
    for (let at = 0; at < text.length; at += size) reader.push(text.slice(at, at + size));
    assert.deepEqual(
      got,
      [
        ["decision", { a: 1 }],
        ["lagged", {}],
        ["edges", { b: 2 }],
      ],
      `pieces of ${size}`,
    );
  }
});

test("numbers and times are short", () => {
  assert.deepEqual([0, 7, 9999, 12345, 1234567].map(format.count), ["0", "7", "9999", "12.3k", "1.2M"]);
  assert.deepEqual([0, 0.01, 0.24, 12.6, 2345].map(format.rate), ["0/s", "<0.1/s", "0.2/s", "13/s", "2.3k/s"]);
  assert.deepEqual([undefined, 0.42, 12.3, 1500].map(format.millis), ["–", "0.4 ms", "12 ms", "1.5 s"]);
  assert.equal(format.when(seenAt(0), Date.parse(seenAt(600))), "10 min ago");
  assert.equal(format.when(seenAt(7200), Date.parse(seenAt(0))), "in 2 h");
});

test("an address comes back as it was given, whatever is in it", () => {
  const made = address("kv", ["a b", "c?d", "é#", ""], { filter: "x&y" });
  const read = route(`#${made}`);
  assert.deepEqual([read.name, read.rest, read.query.get("filter")], ["kv", ["a b", "c?d", "é#", ""], "x&y"]);
  assert.deepEqual(route("#/kv/%zz").rest, ["%zz"]);
});
