/* The few lines of tippy.js that this book needs, so that its tips work without a network.

   sphinx-tippy calls tippy(link, {content, maxWidth, onShow}) for each link that has a tip: a term of the glossary, an
   equation, a figure, a reference. The tip appears on hover and on keyboard focus, and goes on Escape. */
"use strict";

function tippy(link, options) {
  let tip = null;
  let timer = null;

  function build() {
    const box = document.createElement("div");
    box.className = "book-tip";
    box.id = "book-tip";
    box.setAttribute("role", "tooltip");
    box.style.maxWidth = `min(${options.maxWidth}px, calc(100vw - 32px))`;
    box.innerHTML = options.content;
    box.querySelectorAll("[id]").forEach((element) => element.removeAttribute("id"));
    box.querySelectorAll(".headerlink").forEach((element) => element.remove());
    return box;
  }

  function place() {
    if (tip === null) return;
    const at = link.getBoundingClientRect();
    const left = Math.min(Math.max(16, at.left), window.innerWidth - tip.offsetWidth - 16);
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(above > 60 ? above : at.bottom + 8) + window.scrollY}px`;
  }

  function hide() {
    clearTimeout(timer);
    if (tip === null) return;
    tip.remove();
    tip = null;
    link.removeAttribute("aria-describedby");
  }

  function show() {
    hide();
    tip = document.body.appendChild(build());
    link.setAttribute("aria-describedby", tip.id);
    place();
    const ready = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
    ready.then(() => {
      if (tip === null || !window.MathJax || !MathJax.typesetPromise) return;
      MathJax.typesetPromise([tip]).then(place);
    });
  }

  link.removeAttribute("title"); // or the browser would show a second tip
  link.addEventListener("mouseenter", () => { timer = setTimeout(show, 150); });
  link.addEventListener("focus", show);
  link.addEventListener("mouseleave", hide);
  link.addEventListener("blur", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}
