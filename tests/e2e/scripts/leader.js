// One candidate of an election: it leads while it holds the lock of KEY by a session that it renews in time, and prints a
// line when it begins to lead and when it ends.
// Usage: leader.js HOST PORT TOKEN NAME KEY TTL_SECONDS LOCK_DELAY_SECONDS
const Consul = require("consul");

const [host, port, token, name, key, ttl, delay] = process.argv.slice(2);
const consul = new Consul({ host, port, defaults: { token } });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const lifetime = Number(ttl) * 1000;

async function campaign() {
  let renewed = Date.now();
  const { ID: id } = await consul.session.create({ name, ttl: `${ttl}s`, lockdelay: `${delay}s` });
  const renewal = setInterval(async () => {
    const asked = Date.now();
    try {
      await consul.session.renew(id);
      renewed = asked;
    } catch (error) {
      renewed = error.response?.statusCode === 404 ? 0 : renewed;
    }
  }, lifetime / 4);
  try {
    for (;;) {
      if (Date.now() - renewed >= lifetime) return;
      if (await consul.kv.set({ key, value: name, acquire: id })) {
        console.log(`leads ${Date.now()}`);
        while (Date.now() - renewed < lifetime) await pause(10);
        console.log(`ends ${Date.now()}`);
        return;
      }
      const found = await consul.kv.get({ key });
      if (found?.Session) await consul.kv.get({ key, index: found.ModifyIndex, wait: "1s" });
      else await pause(50);
    }
  } finally {
    clearInterval(renewal);
  }
}

(async () => {
  for (;;) {
    try {
      await campaign();
    } catch (error) {
      console.error(error.message);
      await pause(100);
    }
  }
})();
