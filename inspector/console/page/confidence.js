/** How sure a share is that was counted on few parts. */

const TAIL = 0.025;
const STEPS = 60;

/** The 95 % Clopper-Pearson interval of a share, `[low, high]`: `count` of `of` parts had it. */
export function confidence(count, of) {
  if (of < 1) return [0, 1];
  const low = count === 0 ? 0 : quantile(TAIL, count, of - count + 1);
  const high = count === of ? 1 : quantile(1 - TAIL, count + 1, of - count);
  return [low, high];
}

/** Where the beta distribution reaches a share; found by halving. */
function quantile(share, a, b) {
  let [low, high] = [0, 1];
  for (let step = 0; step < STEPS; step += 1) {
    const middle = (low + high) / 2;
    if (incompleteBeta(middle, a, b) < share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The regularised incomplete beta function of whole numbers, by its continued fraction. */
function incompleteBeta(x, a, b) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  // The fraction converges quickly on this side alone.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(logFactorial(a + b - 1) - logFactorial(a - 1) - logFactorial(b - 1)
    + a * Math.log(x) + b * Math.log1p(-x)) / a;
  let [c, d] = [1, 1 / kept(1 - ((a + b) * x) / (a + 1))];
  let fraction = d;
  for (let m = 1; m < 500; m += 1) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    let change = 1;
    for (const term of [even, odd]) {
      d = 1 / kept(1 + term * d);
      c = kept(1 + term / c);
      change = d * c;
      fraction *= change;
    }
    if (Math.abs(change - 1) < 1e-12) break;
  }
  return front * fraction;
}

function kept(value) {
  return Math.abs(value) < 1e-300 ? 1e-300 : value;
}

const LOGS = [0];

function logFactorial(n) {
  for (let at = LOGS.length; at <= n; at += 1) LOGS.push(LOGS[at - 1] + Math.log(at));
  return LOGS[n];
}
