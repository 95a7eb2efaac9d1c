// Requests to the console's own server; a failure is an Error with its reason and hint.

async function answer(response) {
  const told = await response.json().catch(() => ({}));
  if (response.ok) return told;
  const fault = told.error ?? { reason: "UNKNOWN", message: response.statusText };
  if (fault.reason === "LOGIN_REQUIRED") location.assign("/login" + location.hash);
  const error = new Error(fault.hint ? `${fault.message} ${fault.hint}` : fault.message);
  error.reason = fault.reason;
  throw error;
}

export async function get(path) {
  return answer(await fetch(path, { credentials: "same-origin" }));
}

export async function post(path, body = {}) {
  const headers = { "content-type": "application/json" };
  const request = { method: "POST", headers, body: JSON.stringify(body) };
  return answer(await fetch(path, { ...request, credentials: "same-origin" }));
}

export function of(name, verb = "") {
  return `/api/databases/${encodeURIComponent(name)}${verb ? "/" + verb : ""}`;
}
