// Shows the operator's token once, for a cookie.
import { post } from "./api.js";

const form = document.getElementById("login");
const fault = document.getElementById("fault");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  fault.textContent = "";
  try {
    await post("/login", { token: document.getElementById("token").value });
    location.assign("/" + location.hash);
  } catch (error) {
    fault.textContent = error.message;
  }
});
