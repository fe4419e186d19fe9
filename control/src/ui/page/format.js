// Numbers and times as they are shown.

/** A number in at most four characters and a letter. */
export function count(number) {
  if (number === undefined || number === null) return "–";
  for (const [size, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ]) {
    if (number >= size) return `${trim(number / (letter === "k" ? 1e3 : size))}${letter}`;
  }
  return String(Math.round(number));
}

function trim(number) {
  return number >= 100 ? String(Math.round(number)) : number.toFixed(1).replace(/\.0$/, "");
}

/** How often a second. */
export function rate(perSecond) {
  if (!perSecond) return "0/s";
  if (perSecond < 0.05) return "<0.1/s";
  if (perSecond >= 1000) return `${trim(perSecond / 1000)}k/s`;
  return `${perSecond < 10 ? trim(perSecond) : Math.round(perSecond)}/s`;
}

/** Milliseconds. */
export function millis(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms >= 1000) return `${trim(ms / 1000)} s`;
  return `${ms < 10 ? ms.toFixed(1).replace(/\.0$/, "") : Math.round(ms)} ms`;
}

/** Bytes. */
export function bytes(number) {
  for (const [size, unit] of [
    [1 << 30, "GiB"],
    [1 << 20, "MiB"],
    [1 << 10, "KiB"],
  ]) {
    if (number >= size) return `${trim(number / size)} ${unit}`;
  }
  return `${number ?? 0} B`;
}

/** Seconds, in the largest unit that leaves a number of some size. */
export function span(seconds) {
  const size = Math.abs(seconds);
  if (size < 90) return `${Math.round(size)} s`;
  if (size < 5400) return `${Math.round(size / 60)} min`;
  if (size < 48 * 3600) return `${Math.round(size / 3600)} h`;
  if (size < 730 * 86400) return `${Math.round(size / 86400)} d`;
  return `${Math.round(size / (365.25 * 86400))} years`;
}

/** How long ago, or in how long, RFC 3339 text is. */
export function when(text, now = Date.now()) {
  const at = Date.parse(text ?? "");
  if (Number.isNaN(at)) return "–";
  const seconds = (now - at) / 1000;
  if (Math.abs(seconds) < 2) return "now";
  return seconds > 0 ? `${span(seconds)} ago` : `in ${span(seconds)}`;
}

/** The time of day, or the date too where it is not of today. */
export function clock(text) {
  const at = new Date(text ?? "");
  if (Number.isNaN(at.getTime())) return "–";
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return at.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

/** `1 service`, `2 services`. */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
