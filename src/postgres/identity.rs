//! Who is acting, and acting as somebody else for a stretch.

use super::error::Failure;
use super::settings;
use super::spi::Statement;
use pgrx::pg_sys::{self, Oid};
use serde_json::Value;
use std::ffi::{CStr, c_int};

/// Runs `stretch` as another role, as its tables' owner would.
///
/// The role cannot be changed again inside (`SET ROLE` is refused), FORCE ROW LEVEL SECURITY does
/// not hold the owner up, and no setting that a trigger changes inside outlives it. The user id is
/// restored on every way out.
///
/// The search path is pinned: the caller's could put an operator of the caller's own before
/// Postgres's, which our statements, and triggers that do not qualify names, would then run with
/// the role's rights. A path cannot be spelled around: `is distinct from` takes no schema.
///
/// A [`Statement`] belongs on one side of the switch: a kept plan notices another role, but not
/// whether FORCE counted.
pub fn as_user<R>(role: Oid, stretch: impl FnOnce() -> R) -> R {
    let _switched = Switched::to(role);
    settings::with(c"search_path", "pg_catalog, pg_temp", stretch)
}

struct Switched {
    user: Oid,
    context: c_int,
}

impl Switched {
    fn to(role: Oid) -> Switched {
        let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS;
        let mut before = Switched {
            user: Oid::INVALID,
            context: 0,
        };
        // SAFETY: reads into two locals, and sets what the guard will set back.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut before.user, &mut before.context);
            pg_sys::SetUserIdAndSecContext(role, before.context | flags as c_int);
        }
        before
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // SAFETY: what was in force before; never raises.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

/// The role whose rights count right now.
pub fn current_user() -> Oid {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::GetUserId() }
}

/// A role's name; its number when it was dropped.
pub fn role_name(role: Oid) -> String {
    // SAFETY: returns a new string, or null for an unknown role.
    let name = unsafe { super::error::text_at(pg_sys::GetUserNameFromId(role, true)) };
    name.unwrap_or_else(|| role.to_u32().to_string())
}

/// Is the role a superuser?
pub fn is_superuser(role: Oid) -> bool {
    // SAFETY: a catalog lookup.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Does `member` have the privileges of `role`, itself or by inheritance? Superusers do.
pub fn has_privileges_of(member: Oid, role: Oid) -> bool {
    // SAFETY: a catalog lookup.
    unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// Is `member` a member of `role`, inheriting or not? Superusers are.
pub fn is_member_of(member: Oid, role: Oid) -> bool {
    // SAFETY: a catalog lookup.
    unsafe { pg_sys::is_member_of_role(member, role) }
}

/// The owner of this extension: whoever created it.
pub fn extension_owner() -> Result<Oid, Failure> {
    static OWNER: Statement = Statement::new(
        "select extowner
           from pg_catalog.pg_extension
          where extname operator(pg_catalog.=) 'payments'",
    );
    OWNER
        .read(&[], |row| row.required(1))?
        .into_iter()
        .next()
        .ok_or_else(|| Failure::internal("the extension payments is not installed"))
}

/// A claim of the caller's JSON Web Token, as a gateway such as PostgREST leaves it in
/// `request.jwt.claims`, or older ones in `request.jwt.claim.…`.
///
/// Anybody who can run SQL can set these. None when there is no such claim, when it is empty (what
/// a pooled connection keeps of an earlier request), or when it cannot be read.
pub fn request_claim(claim: &str) -> Option<String> {
    let claims = setting("request.jwt.claims").filter(|claims| !claims.is_empty());
    let found = match claims {
        None => setting(&format!("request.jwt.claim.{claim}")),
        Some(claims) => match serde_json::from_str::<Value>(&claims).ok()?.get(claim)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        },
    };
    found.filter(|text| !text.is_empty())
}

/// Who asks: the subject of the caller's JSON Web Token, or else the role.
pub fn requester() -> String {
    request_claim("sub").unwrap_or_else(|| role_name(current_user()))
}

/// A setting by name; None when nobody defined it.
pub fn setting(name: &str) -> Option<String> {
    let name = super::error::c_string(name);
    // SAFETY: the name outlives the call, and the result is copied before anything can change it.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

/// Does each statement of the transaction see what committed before it? Only then can two
/// transactions that change rows of one payment, one after the other, not overlook each other.
pub fn isolation_is_read_committed() -> bool {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as c_int }
}

/// Has the transaction changed anything so far? If not, nothing waits for its end either.
pub fn transaction_has_written() -> bool {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::TransactionId::INVALID }
}

/// Is the transaction, or the whole server, unable to write?
pub fn transaction_is_read_only() -> bool {
    // SAFETY: reads variables of this backend.
    unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() }
}
