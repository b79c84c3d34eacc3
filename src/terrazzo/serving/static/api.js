// What the page asks the server, and how it hears a refusal.

const RETRIES = 4;

export async function models() {
  return (await answered(await fetch("/models"))).json();
}

export async function examples() {
  return (await answered(await fetch("/examples"))).json();
}

// The answer for `file` in the form `as`: {blob, milliseconds}. A full line is waited for; `onWait(seconds)` hears of it.
export async function predict(model, file, as, { signal, onWait = () => {} } = {}) {
  for (let turn = 0; ; turn += 1) {
    const response = await fetch(`${model.url}?as=${as}`, { method: "POST", body: file, signal });
    if (response.status === 429 && turn < RETRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      onWait(seconds);
      await sleep(1000 * seconds, signal);
      continue;
    }
    await answered(response);
    return { blob: await response.blob(), milliseconds: spent(response.headers.get("Server-Timing")) };
  }
}

async function answered(response) {
  if (response.ok) return response;
  let words = `The server answered ${response.status}.`;
  try {
    words = (await response.json()).detail ?? words;
  } catch {
    // no words of ours: a proxy's page, or nothing
  }
  throw new Error(words);
}

function spent(timing) {
  const found = (timing ?? "").matchAll(/(\w+);dur=([\d.]+)/g);
  return Object.fromEntries([...found].map(([, stage, ms]) => [stage, Number(ms)]));
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
