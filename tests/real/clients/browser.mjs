/** A browser without a screen: keeps cookies and follows redirects. */

/** Where `url` leads: the first address that begins with `end`. */
export async function visit(url, end) {
  const cookies = new Map();
  for (let place = new URL(url), steps = 0; steps < 20; steps += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(place, { redirect: 'manual', headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=');
      cookies.set(name, value);
    }
    const next = answer.headers.get('location');
    if (!next) throw new Error(`${place} leads nowhere: ${answer.status} ${await answer.text()}`);
    place = new URL(next, place);
    if (place.href.startsWith(end)) return place;
  }
  throw new Error(`${url} goes in circles`);
}
