/**
 * Preloaded into server-everything (node --import), which listens on every address of the machine and has no option
 * for fewer. A test must not offer its servers to the network, so whatever it listens on becomes 127.0.0.1.
 */
import { Server } from 'node:net';

const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
  return typeof port === 'number' || typeof port === 'string' ? listen.call(this, port, '127.0.0.1', ...rest) : listen.call(this, port, ...rest);
};
