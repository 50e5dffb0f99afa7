//! Connections for the HTTP client: TCP, waiting as [`super::interrupt`] waits.

use super::interrupt::{self, Readiness, Waited};
use super::resolver;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};
use zeroize::Zeroize;

/// Opens TCP connections whose waits can be interrupted.
#[derive(Debug)]
pub(super) struct TcpConnector;

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        let addresses = resolver::addresses(details.uri, details.config, details.timeout)?;
        let stream = connect_any(&addresses, details.timeout)?;
        if details.config.no_delay() {
            stream.set_nodelay(true)?;
        }
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(TcpTransport { stream, buffers })))
    }
}

/// Tries the addresses in turn. Each gets its share of the time that is left, so that a first one
/// that swallows packets, as a broken IPv6 route does, leaves time for the next.
fn connect_any(addresses: &[SocketAddr], timeout: NextTimeout) -> Result<TcpStream, Error> {
    let deadline = deadline(timeout)?;
    let mut last = Error::ConnectionFailed;
    for (tried, address) in addresses.iter().enumerate() {
        let share = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Instant::now() + left / (addresses.len() - tried) as u32
        });
        match connect_one(*address, share) {
            Ok(stream) => return Ok(stream),
            Err(error @ (Error::Io(_) | Error::Timeout(_))) => last = error,
            Err(error) => return Err(error),
        }
    }
    match last {
        Error::Timeout(_) => Err(Error::Timeout(timeout.reason)),
        error => Err(error),
    }
}

fn connect_one(address: SocketAddr, deadline: Option<Instant>) -> Result<TcpStream, Error> {
    interrupt::check()?;
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            if interrupt::wait(socket.as_fd(), Readiness::Connected, deadline)? == Waited::TimedOut
            {
                return Err(Error::Timeout(Timeout::Connect));
            }
            if let Some(error) = socket.take_error()? {
                return Err(error.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(socket.into())
}

/// One TCP connection. The socket never blocks: input and output are tried first, and waited for
/// only when the kernel has none, so that an answer that is there costs no wait.
#[derive(Debug)]
pub(super) struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl TcpTransport {
    fn wait(&self, readiness: Readiness, timeout: NextTimeout) -> Result<(), Error> {
        match interrupt::wait(self.stream.as_fd(), readiness, deadline(timeout)?)? {
            Waited::Ready => Ok(()),
            Waited::TimedOut => Err(Error::Timeout(timeout.reason)),
        }
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let mut sent = 0;
        while sent < amount {
            interrupt::check()?;
            match self.stream.write(&self.buffers.output()[sent..amount]) {
                Ok(0) => return Err(Error::Io(ErrorKind::WriteZero.into())),
                Ok(written) => sent += written,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.wait(Readiness::Writable, timeout)?,
                    ErrorKind::Interrupted => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        loop {
            interrupt::check()?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.wait(Readiness::Readable, timeout)?,
                    ErrorKind::Interrupted => {}
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// An idle connection is good while there is nothing to read: neither an end nor an answer to
    /// a question that was not asked.
    fn is_open(&mut self) -> bool {
        let read = self.stream.read(&mut [0]);
        matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// Wipes what was sent, the secret key of the request's header among it, which would otherwise stay
/// in the buffer for as long as the connection is kept alive. Belongs above TLS.
#[derive(Debug)]
pub(super) struct WipingConnector;

impl<In: Transport> Connector<In> for WipingConnector {
    type Out = WipingTransport<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(WipingTransport))
    }
}

/// See [`WipingConnector`].
#[derive(Debug)]
pub(super) struct WipingTransport<T>(T);

impl<T: Transport> Transport for WipingTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let sent = self.0.transmit_output(amount, timeout);
        self.0.buffers().output()[..amount].zeroize();
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// When `timeout` will have passed; None when it never does.
pub(super) fn deadline(timeout: NextTimeout) -> Result<Option<Instant>, Error> {
    if timeout.after.is_not_happening() {
        return Ok(None);
    }
    let left: Duration = *timeout.after;
    if left.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(Instant::now().checked_add(left))
}
