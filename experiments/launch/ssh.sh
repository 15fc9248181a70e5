#!/bin/bash
# Run on a machine with password-less ssh to all hosts. ^C or SIGTERM saves on all hosts and stops.
set -uo pipefail
hosts=(@HOSTS@)
# As the shell on a host reads them.
directory=@DIRECTORY@
command=@COMMAND@
coordinator=@COORDINATOR@
marks="/tmp/@NAME@.$$"

start() { # host, process index; `exec` makes the recorded pid that of the training
  ssh -o BatchMode=yes "$1" "cd $directory && echo \$\$ > $marks.$2 && exec $command \
--distributed.coordinator $coordinator --distributed.num-processes ${#hosts[@]} --distributed.process-id $2"
}

stop() {
  for number in "${!hosts[@]}"; do
    ssh -o BatchMode=yes "${hosts[$number]}" "kill -TERM \$(cat $marks.$number) 2>/dev/null; rm -f $marks.$number" &
  done
}

trap stop INT TERM
started=()
for number in "${!hosts[@]}"; do
  start "${hosts[$number]}" "$number" &
  started+=($!)
done

code=0
for process in "${started[@]}"; do
  # A signal interrupts `wait`, not the training.
  until wait "$process"; do
    result=$?
    if ! kill -0 "$process" 2>/dev/null; then
      [ "$code" -ne 0 ] || code=$result
      break
    fi
  done
done
exit "$code"
