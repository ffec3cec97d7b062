# Sourced by the scripts beside it: messages, and the installation of what is missing.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
warn() { printf '\033[1m==> note:\033[0m %s\n' "$*" >&2; }
fail() {
  printf '\033[1m==> failed:\033[0m %s\n' "$*" >&2
  exit 1
}

# need_packages PROGRAM=PACKAGE...: installs the Debian package of every program that is not there.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null 2>&1 || fail "these are missing, and this is no Debian to install them on: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "these are missing; install them as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]} (Debian packages)"
  "${as_root[@]}" apt-get update -qq >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_rust: a Rust toolchain that is new enough.
need_rust() {
  local want
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  [ -r "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  if ! command -v cargo >/dev/null 2>&1; then
    need_packages curl=curl
    say "installing Rust by rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt >/dev/null ||
      fail "Rust could not be installed; see https://rustup.rs for other ways"
    . "$HOME/.cargo/env"
  fi
  local have
  have=$(rustc --version | awk '{ print $2 }')
  [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
    fail "Rust $have is too old: gapscan needs $want; run: rustup update stable"
}

# need_build_tools: what the crates with C parts need (the crypto provider and SQLite).
need_build_tools() {
  need_packages cc=build-essential cmake=cmake
  need_rust
}

# target_folder PROFILE: where cargo leaves the binaries of this machine's own target.
target_folder() {
  local host
  host=$(rustc -vV | sed -n 's/^host: //p')
  printf '%s/%s/%s\n' "${CARGO_TARGET_DIR:-$root/target}" "$host" "$1"
}
