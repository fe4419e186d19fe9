// The layer of every node: links go from left to right, those that close a circle excepted.

/**
 * Long chains through circles are pressed together to `most` layers; links inside a layer remain then.
 * @returns {Map<string, number>} 0 is leftmost
 */
export function layersOf(names, links, most = Infinity) {
  const rank = new Map(sequence(names, links).map((name, index) => [name, index]));
  const calls = new Map(names.map((name) => [name, []]));
  const callers = new Map(names.map((name) => [name, []]));
  for (const { source, destination } of links) {
    // A link against the sequence closes a circle; it counts the other way round.
    const [from, to] = rank.get(source) < rank.get(destination) ? [source, destination] : [destination, source];
    calls.get(from).push(to);
    callers.get(to).push(from);
  }
  const layers = new Map();
  const inSequence = [...names].sort((a, b) => rank.get(a) - rank.get(b));
  for (const name of inSequence) {
    layers.set(name, Math.max(-1, ...callers.get(name).map((caller) => layers.get(caller))) + 1);
  }
  // Whoever could stand nearer to those it calls does.
  for (const name of inSequence.reverse()) {
    const nearest = Math.min(...calls.get(name).map((called) => layers.get(called)));
    const isCalled = callers.get(name).length > 0;
    if (calls.get(name).length && !isCalled) layers.set(name, nearest - 1);
  }
  return pressed(layers, most);
}

/** At most so many layers: those side by side that have few nodes become one. */
function pressed(layers, most) {
  const sizes = [];
  for (const layer of layers.values()) sizes[layer] = (sizes[layer] ?? 0) + 1;
  if (sizes.length <= most) return layers;
  const wanted = layers.size / most;
  const becomes = [];
  let now = 0;
  let filled = 0;
  sizes.forEach((size = 0, layer) => {
    if (filled > 0 && filled + size / 2 > wanted && now < most - 1) {
      now += 1;
      filled = 0;
    }
    filled += size;
    becomes[layer] = now;
  });
  return new Map([...layers].map(([name, layer]) => [name, becomes[layer]]));
}

/** A sequence of the nodes in which few links go back (Eades, Lin and Smyth: sinks last, sources first, else the one that calls
 * most beyond what calls it). */
function sequence(names, links) {
  const left = new Map(names.map((name) => [name, { calls: new Set(), callers: new Set() }]));
  for (const { source, destination } of links) {
    left.get(source).calls.add(destination);
    left.get(destination).callers.add(source);
  }
  const first = [];
  const last = [];
  const take = (name) => {
    const { calls, callers } = left.get(name);
    for (const called of calls) left.get(called).callers.delete(name);
    for (const caller of callers) left.get(caller).calls.delete(name);
    left.delete(name);
  };
  const takeAll = (side, into) => {
    for (let found = true; found;) {
      found = false;
      for (const [name, of] of left) {
        if (of[side].size === 0) {
          into.push(name);
          take(name);
          found = true;
        }
      }
    }
  };
  while (left.size) {
    takeAll("calls", last);
    takeAll("callers", first);
    let best;
    for (const [name, { calls, callers }] of left) {
      const surplus = calls.size - callers.size;
      if (best === undefined || surplus > best.surplus) best = { name, surplus };
    }
    if (best) {
      first.push(best.name);
      take(best.name);
    }
  }
  return [...first, ...last.reverse()];
}
