// A session as imapflow users write it. Arguments: the authority's file, SMTP and IMAPS ports.
const fs = require('node:fs');
const net = require('node:net');
const { ImapFlow } = require('imapflow');

const [authority, smtp, imaps] = process.argv.slice(2);

// One message over SMTP, word by word.
function deliver(subject) {
  const lines = [
    'EHLO client.example.org', 'MAIL FROM:<you@example.org>', 'RCPT TO:<alice@demo.test>', 'DATA',
    `From: you@example.org\r\nTo: alice@demo.test\r\nSubject: ${subject}\r\n\r\nText of ${subject}\r\n.`, 'QUIT',
  ];
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(smtp), '127.0.0.1');
    let buffer = '';
    socket.on('error', reject);
    socket.on('close', () => resolve());
    socket.on('data', (data) => {
      buffer += data;
      const replies = buffer.split('\r\n');
      buffer = replies.pop();
      for (const reply of replies) {
        if (/^[45]/.test(reply)) reject(new Error(reply));
        if (/^\d{3}( |$)/.test(reply) && lines.length) socket.write(`${lines.shift()}\r\n`);
      }
    });
  });
}

function check(condition, what) {
  if (!condition) throw new Error(what);
}

async function main() {
  for (let number = 0; number < 20; number += 1) await deliver(`flow-${number}`);
  const client = new ImapFlow({
    host: 'localhost', port: Number(imaps), secure: true, logger: false,
    auth: { user: 'alice@demo.test', pass: 'demo' }, tls: { ca: fs.readFileSync(authority) },
  });
  await client.connect();
  const folders = await client.list();
  check(folders.some((folder) => folder.specialUse === '\\Sent'), 'no Sent mailbox');
  const lock = await client.getMailboxLock('INBOX');
  try {
    check(client.mailbox.exists === 20, `exists ${client.mailbox.exists}`);
    let count = 0;
    for await (const message of client.fetch('1:*', { envelope: true, source: true, bodyStructure: true, flags: true })) {
      check(message.envelope.subject === `flow-${count}`, message.envelope.subject);
      check(message.source.includes(`Text of flow-${count}`), 'source');
      count += 1;
    }
    check(count === 20, `fetched ${count}`);
    const found = await client.search({ subject: 'flow-7', seen: false }, { uid: true });
    check(found.length === 1, `found ${found}`);
    check(await client.messageFlagsAdd(found, ['\\Seen', '$Forwarded'], { uid: true }), 'flags');
    const moved = await client.messageMove(found, 'Archive', { uid: true });
    check(moved.uidMap.size === 1, 'COPYUID');
    const { content } = await client.download('1', undefined);
    let size = 0;
    for await (const chunk of content) size += chunk.length;
    check(size > 50, 'download');
    check(await client.messageDelete('1:3'), 'delete');
    check(client.mailbox.exists === 16, `after delete ${client.mailbox.exists}`);
  } finally {
    lock.release();
  }
  const appended = await client.append('Drafts', 'Subject: draft\r\n\r\nText\r\n', ['\\Draft']);
  check(appended.uid === 1, `APPENDUID ${appended.uid}`);
  const status = await client.status('Archive', { messages: true, unseen: true, uidNext: true });
  check(status.messages === 1 && status.unseen === 0, JSON.stringify(status));
  await client.mailboxCreate(['Work', 'Plans']);
  await client.mailboxRename('Work/Plans', 'Work/Done');
  await client.mailboxDelete('Work/Done');
  await client.logout();
  console.log('all good');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
