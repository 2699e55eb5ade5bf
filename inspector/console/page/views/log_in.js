/** Who is there? */

import { post } from "../api.js";
import { el, fill } from "../dom.js";
import { plain } from "../shown.js";
import { reason, text } from "../words.js";

/** The form; `done` is called after a log-in, `language` is a switch to show with it. */
export function logIn(done, language) {
  const problem = el("p", { role: "alert", class: "problem" });
  const name = el("input", { name: "name", autocomplete: "username", required: true, autofocus: true });
  const password = el("input", {
    name: "password", type: "password", autocomplete: "current-password", required: true,
  });
  const enter = el("button", { type: "submit" }, text("log_in.enter"));
  document.title = plain(`${text("log_in.enter")} – Line Inspector`);
  const send = async (event) => {
    event.preventDefault();
    fill(problem, "");
    enter.disabled = true;
    try {
      await post("/api/log-in", { name: name.value, password: password.value });
    } catch (error) {
      fill(problem, `▲ ${reason(error)}${error.detail ? ` (${error.detail})` : ""}`);
      password.value = "";
      password.focus();
      return;
    } finally {
      enter.disabled = false;
    }
    await done();
  };
  return el(
    "main",
    { class: "alone" },
    el("img", { src: "/static/icon.svg", alt: "", width: 64, height: 64 }),
    el("h1", {}, "Line Inspector"),
    el(
      "form",
      { class: "panel", onsubmit: send },
      el("label", {}, text("log_in.name"), name),
      el("label", {}, text("log_in.password"), password),
      problem,
      enter,
    ),
    language,
  );
}
