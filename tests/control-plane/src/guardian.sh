# Starts processes for someone, and outlives that someone just long enough to end them.
#
#   sh -c THIS guardian FOLDER
#
# Commands come on stdin, one a line: `start NAME` runs FOLDER/NAME.sh with its output in FOLDER/NAME.log,
# `signal SIGNAL NAME` sends a signal to it. Answers go to stdout: `started NAME PID`, `exited NAME CODE`.
# When stdin ends, whatever the reason (a clean stop, a panic, Ctrl-C, SIGKILL), every process is killed and
# the folder removed, unless it holds a file `keep`.
cd "$1" || exit 1

# A child writes its pid before it looks for `over`, and this writes `over` before it looks for pids: whichever
# comes first, no child that was just being started is left behind.
end() {
  trap '' TERM INT HUP
  : >over
  while ls ./*.running >/dev/null 2>&1; do
    for file in ./*.pid; do
      [ -s "$file" ] && kill -KILL "$(cat "$file")"
    done 2>/dev/null
    sleep 0.05
  done
  wait
  [ -e keep ] || { cd / && rm -rf "$1"; }
  exit 0
}
trap 'end "$1"' TERM INT HUP

while read -r verb first second; do
  case $verb in
    start)
      : >"$first.running"
      (
        sh "./$first.sh" 3>&1 >>"$first.log" 2>&1 </dev/null
        code=$?
        rm -f "$first.pid" "$first.running"
        echo "exited $first $code"
      ) 2>/dev/null &
      ;;
    signal)
      # No process of that name any more: it ended in the meantime, which `exited` has said.
      [ -s "$second.pid" ] && kill "-$first" "$(cat "$second.pid")" 2>/dev/null
      ;;
  esac
done
end "$1"
