/** The worker: a core that is called by messages. */

import { Core } from './core.js';
import { plain } from './errors.js';
import type { Reply, Request } from './protocol.js';

let core: Core | undefined;
const calls = new Map<number, AbortController>();

function post(reply: Reply): void {
  self.postMessage(reply);
}

async function run(id: number, name: string, args: unknown): Promise<void> {
  const controller = new AbortController();
  calls.set(id, controller);
  try {
    if (!core) throw new Error('the worker was not started');
    const result = await core.call(name, args, (event) => post({ id, event }), controller.signal);
    post({ id, result });
  } catch (error) {
    post({ id, error: plain(error) });
  } finally {
    calls.delete(id);
  }
}

self.addEventListener('message', ({ data }: MessageEvent<Request>) => {
  if ('start' in data) core = new Core(data.start);
  else if ('abort' in data) calls.get(data.id)?.abort();
  else void run(data.id, data.call, data.args);
});
