#!/bin/sh
# Shows a server and a client at work: set, get, restart, get again, shut down.
# Usage: sh examples/demo.sh DIRECTORY-OF-THE-BINARIES
# It stops by itself and leaves nothing behind, also when something fails.
set -eu

PATH="$(cd "$1" && pwd):$PATH"
data=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server" 2>/dev/null; rm -rf "$data"' EXIT
trap 'exit 1' INT TERM
cd "$data"

# Prints a command as one would type it, then what it prints.
show() {
    printf '$'
    for word; do
        case $word in
            *' '*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

# Starts a server on an address and waits until it listens: it says so on stderr.
start() {
    printf '$ kvs-server --addr %s &\n' "$1"
    # The file is emptied first: it holds the messages of the server before.
    : >server.txt
    kvs-server --addr "$1" 2>>server.txt &
    server=$!
    tries=0
    until grep -q ' listening on ' server.txt; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
            cat server.txt >&2
            exit 1
        fi
        sleep 0.05
    done
    grep ' listening on ' server.txt
    addr=$(sed -n 's/.* listening on \([^,]*\),.*/\1/p' server.txt)
}

start 127.0.0.1:0
show kvs-client set greeting 'hello, world' --addr "$addr"
show kvs-client get greeting --addr "$addr"
show kvs-client get nothing --addr "$addr"
show kvs-client shutdown --addr "$addr"
wait "$server"
start "$addr"
show kvs-client get greeting --addr "$addr"
show kvs-client rm greeting --addr "$addr"
show kvs-client get greeting --addr "$addr"
show kvs-client shutdown --addr "$addr"
wait "$server"
server=
