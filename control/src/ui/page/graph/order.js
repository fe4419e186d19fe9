// The order inside each layer: every cell to the barycentre of its neighbours, to and fro, keeping the order with the fewest crossings.

const ROUNDS = 12;

/**
 * @param {Map<object, number>} cells their layers
 * @param {Map<object, {left: object[], right: object[]}>} neighbours
 * @returns {object[][]} the cells of each layer, from the top
 */
export function ordered(cells, neighbours) {
  let layers = [];
  for (const [cell, layer] of cells) (layers[layer] ??= []).push(cell);
  layers = Array.from(layers, (layer) => layer ?? []);
  let best = layers;
  let fewest = crossings(layers, neighbours);
  for (let round = 0; round < ROUNDS && fewest > 0; round += 1) {
    layers = swept(layers, neighbours, round % 2 === 0 ? "left" : "right");
    const now = crossings(layers, neighbours);
    if (now < fewest) [best, fewest] = [layers, now];
  }
  return best;
}

function swept(layers, neighbours, side) {
  const result = [...layers];
  const positions = new Map();
  const note = (layer) => layer.forEach((cell, index) => positions.set(cell, (index + 0.5) / layer.length));
  result.forEach(note);
  const indices = [...layers.keys()];
  for (const index of side === "left" ? indices : indices.reverse()) {
    const weights = new Map();
    for (const cell of result[index]) {
      const beside = neighbours.get(cell)[side];
      const total = beside.reduce((sum, other) => sum + positions.get(other), 0);
      weights.set(cell, beside.length ? total / beside.length : positions.get(cell));
    }
    result[index] = [...result[index]].sort((a, b) => weights.get(a) - weights.get(b));
    note(result[index]);
  }
  return result;
}

/** How many pairs of links between layers side by side cross, counted with a tree of sums (Barth, Mutzel and Jünger). */
export function crossings(layers, neighbours) {
  let total = 0;
  for (let index = 0; index + 1 < layers.length; index += 1) {
    const place = new Map(layers[index + 1].map((cell, at) => [cell, at]));
    const sums = new Array(layers[index + 1].length + 1).fill(0);
    let seen = 0;
    for (const cell of layers[index]) {
      const ends = neighbours
        .get(cell)
        .right.map((other) => place.get(other))
        .filter((at) => at !== undefined);
      for (const end of ends) {
        let notAfter = 0;
        for (let at = end + 1; at > 0; at -= at & -at) notAfter += sums[at];
        total += seen - notAfter;
      }
      for (const end of ends) {
        for (let at = end + 1; at < sums.length; at += at & -at) sums[at] += 1;
        seen += 1;
      }
    }
  }
  return total;
}
