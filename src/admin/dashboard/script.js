// Keeps the page fresh: replaces what events bring, says whether they come, and shows what a column means.

/** Longest silence, in milliseconds; there is an event each second. */
const SILENCE_MAX = 5000;

/** From a connection that was refused to the next, in milliseconds. */
const PAUSE = 2000;

const link = document.getElementById("link");
let source = null;
let silence = 0;
let again = 0;

function tell(words) {
    link.hidden = words === "";
    if (link.textContent !== words) link.textContent = words;
}

function listen() {
    clearTimeout(again);
    source?.close();
    source = new EventSource(`/dashboard/events?span=${document.body.dataset.span}`);
    source.addEventListener("version", (event) => {
        if (event.data !== document.body.dataset.version) location.reload();
    });
    source.onmessage = (event) => {
        heard();
        for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html);
    };
    source.onerror = () => {
        tell("Connection lost, trying again. What is shown is old.");
        // Refused by an answer, the browser does not try again by itself.
        if (source.readyState === EventSource.CLOSED) again = setTimeout(listen, PAUSE);
    };
    heard();
}

function heard() {
    clearTimeout(silence);
    silence = setTimeout(() => {
        tell("Nothing was heard for a while, trying again. What is shown is old.");
        listen();
    }, SILENCE_MAX);
    if (source.readyState === EventSource.OPEN) tell("");
}

function replace(id, html) {
    const element = document.getElementById(id);
    // What is announced is touched only where it says something new.
    if (!element || element.innerHTML === html) return;
    element.innerHTML = html;
    if (element.classList.contains("picture")) takeTitles(element);
}

// === what a column means ===

const tip = document.createElement("p");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
let pointer = null;

/** Browsers hide a title when its element is replaced, so it is shown here instead. */
function takeTitles(picture) {
    for (const title of picture.querySelectorAll("title")) {
        title.parentNode.dataset.tip = title.textContent;
        title.remove();
    }
    if (pointer) point(pointer);
}

function point({ clientX, clientY }) {
    const column = document.elementFromPoint(clientX, clientY)?.closest(".tip");
    tip.hidden = !column;
    pointer = column ? { clientX, clientY } : null;
    if (!column) return;
    tip.textContent = column.dataset.tip;
    const left = Math.min(clientX + 14, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(left, 8) + scrollX}px`;
    tip.style.top = `${clientY + 18 + scrollY}px`;
}

document.querySelectorAll(".picture").forEach(takeTitles);
document.addEventListener("pointermove", point);
document.addEventListener("pointerdown", point);

// Nobody watches a page that is hidden.
document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") return listen();
    clearTimeout(silence);
    clearTimeout(again);
    source?.close();
});

listen();
