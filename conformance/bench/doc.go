// Command bench measures the Service datapath beside kube-proxy.
package main
