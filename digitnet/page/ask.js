// Asks the page's functions on the server, one call at a time each. Gradio's own way swallows whatever is no answer; here the
// server's sentence comes back, and a call that is told to wait is repeated.
(function (digitnet) {
  "use strict";

  const TRIES = 4;
  const LOST = "The server did not answer. Draw again, or reload the page.";
  const session = Array.from(crypto.getRandomValues(new Uint8Array(12)), (v) => v.toString(16).padStart(2, "0")).join("");

  // server: the component's own functions, used where Gradio's configuration cannot be found.
  // → ask(name, data, { live }) → the answer, or { error: sentence }; live: { late: true } instead of waiting and asking again.
  digitnet.asker = function (server, elementId) {
    const config = window.gradio_config;
    const component = config?.components?.find((one) => one.props?.elem_id === elementId)?.id;
    const base = new URL(config?.root ?? "", window.location).pathname.replace(/\/$/, "") + (config?.api_prefix ?? "/gradio_api");

    function post(name, data) {
      return fetch(`${base}/component_server/`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ data, component_id: component, fn_name: name, session_hash: session }),
      });
    }

    return async function ask(name, data, { live = false } = {}) {
      try {
        if (component === undefined) return (await server[name](data)) ?? { error: LOST };
        for (let tries = 1; ; tries += 1) {
          const response = await post(name, data);
          if (response.ok) return await response.json();
          const { detail } = await response.json().catch(() => ({}));
          const busy = response.status === 429 || response.status === 503;
          if (!busy || (!live && tries === TRIES)) return { error: typeof detail === "string" ? detail : LOST };
          // Not all at once again: thirty who were sent away together come back apart.
          const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, 5) * (0.5 + Math.random());
          await new Promise((done) => setTimeout(done, 1000 * (live ? Math.min(seconds, 0.5) : seconds)));
          if (live) return { late: true };
        }
      } catch {
        return { error: LOST };
      }
    };
  };
})((window.digitnet ??= {}));
