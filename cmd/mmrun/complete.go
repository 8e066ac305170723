package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
)

// complete sets the completion of a flag's value.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // there is no such flag, or it has a completion
	}
}

func completeNothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func completeDirs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// completeTarget offers modules and state directories as the first argument.
func completeTarget(_ *cobra.Command, args []string, start string) (
	[]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completePath(start, moduleSuffix)
}

// completeModule offers modules as the first argument.
func completeModule(_ *cobra.Command, args []string, start string) (
	[]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{strings.TrimPrefix(moduleSuffix, ".")}, cobra.ShellCompDirectiveFilterFileExt
}

// completeStates offers state directories.
func completeStates(_ *cobra.Command, _ []string, start string) (
	[]string, cobra.ShellCompDirective) {
	return completePath(start, "")
}

// completePath offers state directories, the files that end in suffix unless it is empty, and the
// directories in which there may be more.
func completePath(start, suffix string) ([]string, cobra.ShellCompDirective) {
	dir, begin := filepath.Split(start)
	in := dir
	if in == "" {
		in = "."
	}
	entries, err := os.ReadDir(in)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	final := false // one of them can be all of a TARGET
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, begin) || escapeName(name) != name ||
			begin == "" && strings.HasPrefix(name, ".") {
			continue
		}
		path := dir + name
		info, err := os.Stat(path) // a link to a module is a module
		switch {
		case err != nil:
		case !info.IsDir():
			if suffix != "" && strings.HasSuffix(name, suffix) {
				found, final = append(found, path), true
			}
		default:
			if is, err := fsck.Exists(path); err == nil && is {
				found, final = append(found, path+"\tstate"), true
			} else {
				found = append(found, path+string(filepath.Separator))
			}
		}
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if !final {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return found, directive
}

// completeFunction offers a TARGET and then the functions that it exports.
func (a *app) completeFunction(cmd *cobra.Command, args []string, start string) (
	[]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeTarget(cmd, args, start)
	}
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	t, err := a.target(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	fs, err := a.functionsOf(cmd.Context(), t)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, name := range fs.names() {
		// A shell is given no name that it would have to quote.
		plain := escapeName(name) == name && !strings.ContainsAny(name,
			" \t\"'\\$`&|;<>(){}*?[]#~!")
		if plain && strings.HasPrefix(name, start) && fs.runsOnce(name) == "" {
			found = append(found, name+"\t"+mmrun.Signature(fs[name]))
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
