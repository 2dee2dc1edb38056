//! How does a new binary take over without a connection refused?
//!
//! On SIGUSR2 the gateway starts its program anew, as it was started, and hands it its listening sockets
//! over a pair of sockets of which one is the new one's standard input (SCM_RIGHTS). The new one says
//! when its configuration is all right. Then this one takes no more connections, which wait in the
//! sockets meanwhile, and writes down what sessions there are; the new one reads that, begins to take
//! connections, and says so. If it never does, this one goes on as if nothing had been.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// Says to a program that its standard input is what it takes over from.
const SUCCESSOR: &str = "LISTEN_SUCCESSOR";
/// How long the other side may take for a step.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the two say to each other.
const SOCKETS: u8 = b's';
const PREPARED: u8 = b'p';
const GO: u8 = b'g';
const SERVING: u8 = b'r';

/// A program that is about to take over.
pub struct Successor {
    stream: UnixStream,
    program: Child,
}

impl Successor {
    /// Starts it and gives it these sockets. Gives back once its configuration is all right. This waits.
    pub fn prepare(sockets: [BorrowedFd<'_>; 2]) -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or(io::ErrorKind::NotFound)?;
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut command = Command::new(program);
        command.args(arguments).env(SUCCESSOR, "1").stdin(OwnedFd::from(theirs));
        let mut successor = Self { stream, program: command.spawn()? };
        drop(command); // It holds the other side open.
        send(&successor.stream, sockets)?;
        successor.hears(PREPARED)?;
        Ok(successor)
    }

    /// Lets it begin, and gives back once it has. This waits.
    pub fn go(mut self) -> io::Result<u32> {
        self.stream.write_all(&[GO])?;
        self.hears(SERVING)?;
        Ok(self.program.id())
    }

    fn hears(&mut self, wanted: u8) -> io::Result<()> {
        let heard = hear(&mut self.stream, wanted);
        if heard.is_err() {
            let _ = self.program.kill();
            let _ = self.program.wait();
        }
        heard
    }
}

/// What a program has that takes over.
#[derive(Debug)]
pub struct Inheritance {
    stream: UnixStream,
}

impl Inheritance {
    /// What there is to take over, if there is.
    pub fn of_process() -> io::Result<Option<Self>> {
        if std::env::var_os(SUCCESSOR).is_none() {
            return Ok(None);
        }
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Some(Self { stream }))
    }

    /// For clients, and for operators.
    pub fn sockets(&self) -> io::Result<[TcpListener; 2]> {
        Ok(receive(&self.stream)?.map(TcpListener::from))
    }

    /// Says that all is right, and waits until it is time to begin.
    pub fn prepared(&mut self) -> io::Result<()> {
        self.stream.write_all(&[PREPARED])?;
        hear(&mut self.stream, GO)
    }

    /// Says that it has begun.
    pub fn serving(mut self) -> io::Result<()> {
        self.stream.write_all(&[SERVING])
    }
}

fn hear(stream: &mut UnixStream, wanted: u8) -> io::Result<()> {
    let mut said = [0];
    stream.read_exact(&mut said)?;
    if said == [wanted] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn send(stream: &UnixStream, sockets: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(&sockets));
    rustix::net::sendmsg(stream, &[IoSlice::new(&[SOCKETS])], &mut beside, SendFlags::empty())?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<[OwnedFd; 2]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut said = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut said)], &mut beside, flags)?;
    let rights = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let sockets: Vec<_> = rights.flatten().collect();
    let none =
        || io::Error::new(io::ErrorKind::InvalidData, "the standard input gives no sockets to take over");
    if said != [SOCKETS] {
        return Err(none());
    }
    sockets.try_into().map_err(|_| none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_over_as_they_are() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        send(&ours, [sockets[0].as_fd(), sockets[1].as_fd()]).unwrap();
        let received = receive(&theirs).unwrap().map(TcpListener::from);
        for (sent, received) in sockets.iter().zip(&received) {
            assert_eq!(sent.local_addr().unwrap(), received.local_addr().unwrap());
        }
        (&ours).write_all(b"x").unwrap();
        assert!(receive(&theirs).is_err());
    }
}
