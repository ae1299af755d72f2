// What is wrong with the page for people who read, hear or operate it otherwise; an empty list where nothing is.
(() => {
    const findings = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    const complain = (element, what) => findings.push(`${what}: ${element.outerHTML.slice(0, 120)}`);

    if (document.documentElement.lang !== "en" || !document.title) findings.push("no language or title");
    for (const landmark of ["header", "nav", "main", "footer", "h1"]) {
        if (all(landmark).length !== 1) findings.push(`${all(landmark).length} of ${landmark}`);
    }
    let level = 0;
    for (const heading of all("h1, h2, h3, h4, h5, h6")) {
        const next = Number(heading.tagName[1]);
        if (next > level + 1 || !heading.textContent.trim()) complain(heading, "heading out of order or empty");
        level = next;
    }
    const ids = all("[id]").map((element) => element.id);
    if (new Set(ids).size !== ids.length) findings.push("an id stands twice");
    for (const element of all("[aria-labelledby]")) {
        if (!document.getElementById(element.getAttribute("aria-labelledby"))) complain(element, "labelled by nothing");
    }
    for (const element of all("[tabindex]")) if (element.tabIndex > 0) complain(element, "a tabindex of its own");
    for (const element of all("a, button, summary, input, select")) {
        if (!element.textContent.trim()) complain(element, "a control without a name");
        const { height } = element.getBoundingClientRect();
        if (height < 24) complain(element, `a control ${height} pixels high`);
    }
    for (const table of all("table")) {
        if (!table.caption?.textContent.trim()) complain(table, "a table without a caption");
        if ([...table.tBodies[0].rows].some((row) => row.cells.length > 1 && !row.querySelector("th[scope=row]"))) {
            complain(table, "a row without a header");
        }
        if (!table.tHead.querySelector("th[scope=col]")) complain(table, "columns without headers");
    }
    for (const svg of all("svg")) if (svg.getAttribute("role") !== "img" || !svg.getAttribute("aria-label")) complain(svg, "a picture without words");
    for (const region of all("[role=region], section")) {
        if (!region.getAttribute("aria-label") && !region.getAttribute("aria-labelledby")) complain(region, "a region without a name");
    }
    for (const scroll of all(".scroll")) {
        const scrolls = scroll.scrollWidth > scroll.clientWidth || scroll.scrollHeight > scroll.clientHeight;
        if (scrolls && scroll.tabIndex !== 0) complain(scroll, "out of reach of the keyboard");
    }
    const live = all("[aria-live], [role=status], [role=alert]");
    if (live.length !== 1 || live[0].getAttribute("aria-live") !== "polite") findings.push("more than the status is announced");
    if (document.documentElement.scrollWidth > innerWidth) findings.push(`${document.documentElement.scrollWidth} pixels wide`);

    // WCAG 2.2, 1.4.3.
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = (colour) => {
        const [red, green, blue] = channels(colour).slice(0, 3).map((value) => value / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ground = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return channels(colour)[3] === 0 && element.parentElement ? ground(element.parentElement) : colour;
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.textContent.trim() || element.closest("[hidden], script, svg") || !element.checkVisibility()) continue;
        const [light, dark] = [getComputedStyle(element).color, ground(element)].map(luminance).sort((one, other) => other - one);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < 4.5) complain(element, `contrast ${contrast.toFixed(2)}`);
    }
    return findings;
})();
