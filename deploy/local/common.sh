# shellcheck shell=bash
# Sourced by `stack`: messages, deadlines, ports, and processes known by pid file.
# All messages go to stderr, so that `stack env` can be captured.

say() { printf '%-6s %s\n' "$1" "${*:2}" >&2; }

die() { say "$1" "error: ${*:2}"; exit 1; }

# now_ds: tenths of a second since the epoch. elapsed START: "8.1 s".
now_ds() { local now=${EPOCHREALTIME/[.,]/}; echo $((now / 100000)); }
elapsed() { local ds=$(($(now_ds) - $1)); echo "$((ds / 10)).$((ds % 10)) s"; }

# megabytes PATH...: size in MB, for messages.
megabytes() { du -c --apparent-size --block-size=MB "$@" 2>/dev/null | tail -n 1 | sed "s#MB.*##"; }

# download_lock FILE: hold FILE's lock on descriptor 7; two instances that start at once download once.
download_lock() {
    exec 7>"$1"
    flock -n 7 && return 0
    say stack "waiting for another download into $STACK_DIR"
    flock 7
}
download_unlock() { exec 7>&-; }

# port_is_free PORT: no process accepts connections there. Another process may still take it before we bind, so the
# start of a server tries another port if the bind fails.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# pick_port [PREFERRED]: below Linux's ephemeral range (32768 and up), so that no outgoing connection uses it.
pick_port() {
    local port tries
    if [[ -n ${1:-} ]] && port_is_free "$1"; then echo "$1"; return 0; fi
    for ((tries = 0; tries < 100; tries++)); do
        port=$((20000 + SRANDOM % 12000))
        if port_is_free "$port"; then echo "$port"; return 0; fi
    done
    die stack "no free port found between 20000 and 32000 on 127.0.0.1"
}

read_file() { if [[ -r $1 ]]; then cat "$1"; fi; }

# running_pid PIDFILE NEEDLE: print the pid if it is alive and its command line holds NEEDLE.
# Pids are reused: a process whose command line does not have this instance's folder is not ours and gets no signal.
running_pid() {
    local pid
    pid=$(read_file "$1")
    [[ -n $pid ]] || return 1
    # A zombie has an empty command line, so it counts as dead.
    { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "$2" || return 1
    echo "$pid"
}

# launch PIDFILE LOG COMMAND...: start in its own session, so that Ctrl-C in the terminal does not reach it, and with our
# descriptors closed, so that it keeps neither our locks nor the caller's pipe open. The child writes the pid file, so that
# no server runs without one even if this shell is killed.
launch() {
    local pid_file=$1 log=$2
    shift 2
    if [[ -s $log ]]; then mv -f "$log" "$log.previous"; fi
    rm -f "$pid_file"
    # shellcheck disable=SC2016
    setsid sh -c 'echo $$ >"$0"; exec "$@"' "$pid_file" "$@" </dev/null >"$log" 2>&1 7>&- 8>&- 9>&- &
    until [[ -s $pid_file ]]; do
        kill -0 $! 2>/dev/null || return 0
        sleep 0.02
    done
}

# process_gone PID: the process has no threads and no open sockets. A dying process loses its command line first and its
# sockets later. A zombie without threads has closed everything and waits for its parent.
process_gone() {
    local tasks
    [[ -d /proc/$1 ]] || return 0
    tasks=$(compgen -G "/proc/$1/task/*" | wc -l)
    ((tasks <= 1)) && grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"
}

# stop_process NAME PIDFILE NEEDLE [KILL]: SIGTERM, up to 20 s, then SIGKILL; with KILL, SIGKILL at once.
stop_process() {
    local name=$1 pid_file=$2 needle=$3 signal=${4:-TERM} pid start deadline
    if ! pid=$(running_pid "$pid_file" "$needle"); then
        rm -f "$pid_file"
        say "$name" "not running"
        return 0
    fi
    start=$(now_ds) deadline=$(($(now_ds) + 200))
    kill "-$signal" "$pid" 2>/dev/null || true
    until process_gone "$pid"; do
        if (($(now_ds) > deadline)) && running_pid "$pid_file" "$needle" >/dev/null; then
            say "$name" "pid $pid did not stop within 20 s: killing it"
            kill -KILL "$pid" 2>/dev/null || true
            deadline=$(($(now_ds) + 200))
        fi
        sleep 0.05
    done
    rm -f "$pid_file"
    case $signal in
        KILL) say "$name" "killed pid $pid" ;;
        *) say "$name" "stopped in $(elapsed "$start")" ;;
    esac
}

# wait_ready NAME SECONDS PIDFILE NEEDLE LOG CHECK...: poll CHECK until it succeeds.
# Returns 1 if the process died (the caller may try another port). At the deadline it prints the end of the log and
# exits.
wait_ready() {
    local name=$1 seconds=$2 pid_file=$3 needle=$4 log=$5 deadline
    shift 5
    deadline=$(($(now_ds) + seconds * 10))
    until "$@"; do
        running_pid "$pid_file" "$needle" >/dev/null || return 1
        if (($(now_ds) > deadline)); then
            tail -n 20 "$log" >&2
            die "$name" "not ready after $seconds s; the end of $log is above"
        fi
        sleep 0.1
    done
}
