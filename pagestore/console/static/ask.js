// One dialog for all that has to be asked before something is done.
import { element } from "./words.js";

const dialog = document.getElementById("ask");
const fields = document.getElementById("ask-fields");
const yes = document.getElementById("ask-yes");

// What was filled in, by names; null where it was called off.
export function ask(title, button, questions, danger = false) {
  document.getElementById("ask-title").textContent = title;
  yes.textContent = button;
  yes.className = danger ? "danger" : "";
  const inputs = questions.map(({ name, label, value = "", hint = "", required = false }) => {
    const input = element("input", { name, placeholder: hint, required, autocomplete: "off" });
    input.value = value;
    fields.append(element("label", {}, label, input));
    return input;
  });
  dialog.showModal();
  (inputs[0] ?? yes).focus();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const filled = Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()]));
        fields.replaceChildren();
        resolve(dialog.returnValue === "yes" ? filled : null);
      },
      { once: true },
    );
  });
}

yes.addEventListener("click", (event) => {
  if (!dialog.querySelector("form").reportValidity()) return;
  event.preventDefault();
  dialog.close("yes");
});
document.getElementById("ask-no").addEventListener("click", () => dialog.close("no"));
